"""NVIDIA's XID catalogue as data: what each code means and what NVIDIA says to do at once. Pure.

Source: "XID catalog" of NVIDIA's GPU deployment documentation, codes 1-172 as of the date below. The actions are
its column "immediate resolution"; the meanings are ours, short. Codes that the catalogue calls unused are not
listed: like every code without an entry they are CONTACT_SUPPORT.
"""

from __future__ import annotations

CATALOGUE_DATE = "2025-10-29"
LAST_CODE = 172

#: NVIDIA's word: verdict, action, and what it says.
RESOLUTIONS = {
    "RESTART_APP": ("warn", "restart job", "restart the job; its own code is the likely cause"),
    "IGNORE": ("pass", "none", "nothing is to be done at once"),
    "RESET_GPU": ("fail", "reset GPU", "reset the GPU"),
    "RESTART_BM": ("fail", "reboot", "reboot the host"),
    "RESTART_VM": ("fail", "reboot", "restart the virtual machine"),
    "CHECK_MECHANICALS": ("fail", "isolate", "look at cables and seating"),
    "WORKFLOW_XID_45": ("warn", "restart job", "follow the other XIDs of the same time; restart the job"),
    "WORKFLOW_XID_48": ("fail", "reset GPU", "reset the GPU; replace it when it comes again"),
    "WORKFLOW_NVLINK_ERR": ("fail", "reset GPU", "reset the GPU; look at the link when it comes again"),
    "WORKFLOW_NVLINK5_ERR": ("warn", "monitor", "what to do depends on its sub-code: investigate"),
    "XID_154": ("warn", "monitor", "the driver's recovery action changed: obey its text"),
    "UPDATE_SWFW": ("warn", "none", "update driver and firmware"),
    "CHECK_UVM": ("warn", "monitor", "look for an error of unified memory beside it"),
    "CONTACT_SUPPORT": ("warn", "monitor", "the catalogue has no action for it: show it to NVIDIA"),
    # the catalogue leaves these open; what is done about them is our choice
    "POWER_SMOOTHING": ("pass", "none", "power smoothing changed its state"),
    "POWER_SMOOTHING_WEAR": ("warn", "monitor", "the power smoothing circuit wears out"),
    "UNRESOLVED": ("warn", "monitor", "the catalogue gives no action yet"),
    "UNRESOLVED_REBOOT": ("warn", "reboot", "the catalogue gives no action yet; operators reboot"),
}


def _row(resolution: str, text: str) -> dict[int, tuple[str, str]]:
    """Return the entries of one resolution: "8 GPU stopped; 39-41 copy engine" has four."""
    found = {}
    for item in text.split(";"):
        codes, _, meaning = item.strip().partition(" ")
        first, _, last = codes.partition("-")
        for code in range(int(first), int(last or first) + 1):
            found[code] = (meaning, resolution)
    return found


#: Code: what it means, NVIDIA's resolution.
XIDS: dict[int, tuple[str, str]] = {
    **_row(
        "RESTART_APP",
        "8 GPU stopped processing; 11 invalid push buffer; 13 graphics engine exception; 25 invalid push buffer; "
        "31 page fault of GPU memory; 32 corrupted push buffer; 39-41 copy engine exception; "
        "60 video processor exception; 68 video decoder exception; 69 graphics engine class error; "
        "70-72 copy engine error; 75-77 copy engine error; 80 corrupted data sent to the GPU; 82 JPEG engine error; "
        "83-84 video decoder error; 85 copy engine error; 86 optical flow exception; 88-89 video decoder error; "
        "94 contained memory error; 96-98 video decoder error; 99-105 JPEG engine error; 126-135 copy engine error; "
        "139 optical flow error",
    ),
    **_row(
        "IGNORE",
        "14 unused; 37-38 driver firmware error; 43 the job's channel was reset; 44 fault during a context switch; "
        "63 a memory row was remapped, or a page retired; 66-67 illegal access by the driver; "
        "92 many corrected memory errors; 93 InfoROM is written too often; 106-107 test message; 108 unused; "
        "121 C2C link error; 137 NVLink privilege error; 141 CUDA fast path error; 152 DLA memory error; "
        "153 DLA timeout; 157 a resource could not be retired; 160 a memory channel was retired; "
        "161 a memory channel could not be retired",
    ),
    **_row(
        "RESET_GPU",
        "46 GPU stopped processing; 62 internal micro-controller halted; 64 a memory row could not be remapped; "
        "95 uncontained memory error; 109 context switch timed out; 110 security fault; 119 GSP does not answer; "
        "120 GSP error; 136 link training failed; 140 unrecovered ECC error; 143 GPU could not be initialised; "
        "155 NVLink error defined by software; 156 a resource was retired; 158 fatal timeout of the GPU",
    ),
    **_row("RESTART_BM", "79 GPU has fallen off the bus"),
    **_row("RESTART_VM", "151 key rotation error"),
    **_row("CHECK_MECHANICALS", "54 auxiliary power is not connected"),
    **_row("WORKFLOW_XID_45", "45 job was cleaned up after other errors"),
    **_row("WORKFLOW_XID_48", "48 double bit ECC error"),
    **_row("WORKFLOW_NVLINK_ERR", "74 NVLink error"),
    **_row("WORKFLOW_NVLINK5_ERR", "144-150 NVLink error"),
    **_row("XID_154", "154 the GPU's recovery action changed"),
    **_row("UPDATE_SWFW", "78 vGPU does not start"),
    **_row("CHECK_UVM", "159 coherent interconnect error"),
    **_row("CONTACT_SUPPORT", "142 video encoder error"),
    **_row("POWER_SMOOTHING", "162 power smoothing engaged again; 163 power smoothing disengaged"),
    **_row(
        "POWER_SMOOTHING_WEAR", "164 power smoothing circuit nears its end; 165 power smoothing circuit is worn out"
    ),
    **_row(
        "UNRESOLVED",
        "166 unencrypted NVLink traffic; 167 fatal timeout of PCIe; 169 internal micro-controller halted; "
        "170 interrupt in confidential mode; 171 uncorrectable DRAM error; 172 uncorrectable SRAM error",
    ),
    **_row("UNRESOLVED_REBOOT", "168 errors in protected memory reduce its capacity"),
}


def entry(code: int) -> tuple[str, str]:
    """Return the meaning and the resolution of *code*."""
    if code in XIDS:
        return XIDS[code]
    known = 1 <= code <= LAST_CODE
    return ("unused" if known else f"not in NVIDIA's catalogue of {CATALOGUE_DATE}", "CONTACT_SUPPORT")
