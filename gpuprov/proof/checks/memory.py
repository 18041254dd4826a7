"""Memory errors: ECC, remapped rows, retired pages, what the driver asks for, the InfoROM. Pure.

No count of corrected errors is bad in itself: shipped limits differ a thousandfold. Their rate is (differences.py).
"""

from __future__ import annotations

import re

from gpuprov.proof.checks.each import CANNOT, Found, Gpu, Unanswered, each
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.checks.each import Judge
    from gpuprov.proof.parts import Context

#: Cards that are delivered with ECC off, where they have it at all.
_ECC_OFF_BY_DEFAULT = re.compile(r"(?i)geforce|titan|quadro|\brtx\b")
#: Rows that NVIDIA remaps at most; pages that a GPU before Ampere retires at most, and when it is watched.
MOST_REMAPPED = 512
MOST_RETIRED = 63
MANY_RETIRED = 15
#: Uncorrectable errors of SRAM in a GPU's life: above this, it is one to replace.
MOST_SRAM = 4
#: NVML's field "GPU recovery action": what it means, and what helps.
RECOVERY = {
    1: ("a reset of the GPU", "reset GPU"),
    2: ("a reboot of the host", "reboot"),
    3: ("that its peer-to-peer work is drained", "reset GPU"),
    4: ("that it is drained, and reset", "reset GPU"),
    5: ("that the IMEX domain is recovered", "restart job"),
    6: ("a reset of its bus", "reset GPU"),
    7: ("a reboot of the host", "reboot"),
}


def ecc_mode(gpu: Gpu, context: Context) -> Found:
    """ECC is on, now and after the next reset, unless the inventory or the model says otherwise."""
    current, pending = (bool(value) for value in gpu["ecc_mode"])
    wanted = context.expect.get("ecc")
    by_default = wanted is None and not current and bool(_ECC_OFF_BY_DEFAULT.search(str(gpu.get("name", ""))))
    state = {True: "on", False: "off"}
    if current != pending:
        reason = f"has ECC {state[current]} until the next reset, then {state[pending]}"
        return Found("warn", state[current], reason, "reset GPU", state[pending])
    if by_default:
        return Found("pass", "off", f"{gpu.device} has ECC off, as this model is delivered")
    if current != (wanted is not False):
        reason = f"has ECC {state[current]}, {state[not current]} is wanted: memory errors go unnoticed"
        if current:
            reason = "has ECC on, off is wanted"
        elif wanted is None:
            reason += " (ecc: false in the inventory, if it is meant)"
        return Found("fail", state[current], reason, "reset GPU", state[not current])
    return Found("pass", state[current])


def _counted(judge: Judge) -> Judge:
    """Return the judge of a counter of ECC, which is a skip where ECC is off and nothing is counted."""

    def judged(gpu: Gpu, context: Context) -> Found:
        try:
            return judge(gpu, context)
        except Unanswered as missing:
            mode = gpu.get("ecc_mode")
            if missing.error not in CANNOT or not isinstance(mode, list) or mode[0]:
                raise
            return Found("skip", None, "ECC is off: memory errors are neither seen nor counted")

    return judged


def uncorrected(gpu: Gpu, context: Context) -> Found:  # noqa: ARG001 - one shape for all judges
    """No uncorrected error since the driver was loaded."""
    count = gpu["ecc.volatile.uncorrected"]
    where = {part: gpu.get(f"ecc.volatile.{part}.uncorrected") for part in ("dram", "sram")}
    told = [f"{part} {value}" for part, value in where.items() if value is not None]
    if count:
        reason = f"has {count} uncorrected memory errors since its driver was loaded"
        return Found("fail", count, reason, "reset GPU", 0, told)
    return Found("pass", count, expected=0)


def lifetime(gpu: Gpu, context: Context) -> Found:  # noqa: ARG001 - one shape for all judges
    """Uncorrected errors of its whole life are told, not blamed: rows were remapped for them."""
    count = gpu["ecc.aggregate.uncorrected"]
    if count:
        return Found("pass", count, f"{gpu.device} had {count} uncorrected errors in its life", "monitor")
    return Found("pass", count)


def corrected(gpu: Gpu, context: Context) -> Found:  # noqa: ARG001 - one shape for all judges
    """Corrected errors are counted; no number of them is bad by itself."""
    return Found("pass", {"since load": gpu["ecc.volatile.corrected"], "life": gpu["ecc.aggregate.corrected"]})


def sram(gpu: Gpu, context: Context) -> Found:  # noqa: ARG001 - one shape for all judges
    """SRAM cannot be remapped: the GPU's own threshold, or more than four errors, end its life."""
    if gpu.get("ecc.sram.threshold_exceeded"):
        life = gpu.get("ecc.aggregate.sram.uncorrected")
        reason = "has had more uncorrectable SRAM errors than its own threshold allows: it is one to replace"
        return Found("fail", life, reason, "isolate", "below the GPU's threshold")
    now, life = gpu["ecc.volatile.sram.uncorrected"], gpu["ecc.aggregate.sram.uncorrected"]
    measured = {"since load": now, "life": life}
    if life > MOST_SRAM:
        reason = f"had {life} uncorrectable SRAM errors in its life: it is one to replace"
        return Found("fail", measured, reason, "isolate", f"<= {MOST_SRAM}")
    if now:
        return Found(
            "fail", measured, f"has {now} uncorrectable SRAM errors since its driver was loaded", "reset GPU", 0
        )
    if life:
        return Found("warn", measured, f"had {life} uncorrectable SRAM errors in its life", "monitor", 0)
    return Found("pass", measured, expected=0)


def remapped(gpu: Gpu, context: Context) -> Found:  # noqa: ARG001 - one shape for all judges
    """No row waits to be remapped, none could not be, and not more were than there are spare ones."""
    correctable, uncorrectable, pending, failure = gpu["remapped"]
    measured = {"correctable": correctable, "uncorrectable": uncorrectable, "pending": pending, "failure": failure}
    if failure:
        return Found("fail", measured, "could not remap a bad row: it has no spare one left", "isolate", "no failure")
    if uncorrectable > MOST_REMAPPED:
        reason = f"has remapped {uncorrectable} rows for uncorrectable errors: it is one to replace"
        return Found("fail", measured, reason, "isolate", f"<= {MOST_REMAPPED}")
    if pending:
        return Found("fail", measured, "has a bad row that is remapped only by a reset", "reset GPU", "none pending")
    notes = f"{gpu.device} has remapped {correctable + uncorrectable} rows" if correctable or uncorrectable else ""
    return Found("pass", measured, notes, "monitor" if uncorrectable else "none")


def retired(gpu: Gpu, context: Context) -> Found:  # noqa: ARG001 - one shape for all judges
    """Pages that a GPU before Ampere has taken out of use."""
    single, double = len(gpu["retired.single_bit"]), len(gpu["retired.double_bit"])
    count = single + double
    measured = {"single bit": single, "double bit": double}
    if count >= MOST_RETIRED:
        return Found(
            "fail", measured, f"has retired {count} pages, it can retire no more", "isolate", f"< {MOST_RETIRED}"
        )
    if gpu.get("retired.pending"):
        return Found("fail", measured, "has a bad page that is retired only by a reset", "reset GPU", "none pending")
    if count > MANY_RETIRED:
        return Found("warn", measured, f"has retired {count} pages", "monitor", f"<= {MANY_RETIRED}")
    return Found("pass", measured)


def recovery(gpu: Gpu, context: Context) -> Found:  # noqa: ARG001 - one shape for all judges
    """The driver asks for nothing to get this GPU well."""
    code = gpu["recovery_action"]
    if not code:
        return Found("pass", "none", expected="none")
    what, action = RECOVERY.get(code, (f"something new, its code {code}", "isolate"))
    return Found("fail", code, f"is not well: its driver asks for {what}", action, "none")


def inforom(gpu: Gpu, context: Context) -> Found:  # noqa: ARG001 - one shape for all judges
    """The InfoROM, in which the GPU keeps its counters and its configuration, is intact."""
    try:
        gpu["inforom"]
    except Unanswered as missing:
        if missing.error == "CorruptedInforom":
            return Found(
                "fail", "corrupted", "has a corrupted InfoROM: its counters cannot be believed", "isolate", "intact"
            )
        raise
    return Found("pass", "intact", expected="intact")


_LOADED = "since the driver was loaded"
PARTS = (
    Part("ecc.mode", "quick", "reading", each("ecc.mode", ecc_mode, "ECC is as wanted"), "NVML: ECC mode"),
    Part(
        "ecc.uncorrected",
        "quick",
        "reading",
        each("ecc.uncorrected", _counted(uncorrected), f"no uncorrected error {_LOADED}"),
        "NVML: volatile ECC counters",
    ),
    Part(
        "ecc.lifetime",
        "quick",
        "reading",
        each("ecc.lifetime", _counted(lifetime), "uncorrected errors of their lives counted"),
        "NVML: aggregate ECC counters",
    ),
    Part(
        "ecc.corrected",
        "quick",
        "reading",
        each("ecc.corrected", _counted(corrected), "corrected errors counted; only their rate can be bad"),
        "NVML: ECC counters",
    ),
    Part(
        "ecc.sram",
        "quick",
        "reading",
        each("ecc.sram", _counted(sram), "no uncorrectable error in SRAM"),
        "NVML: SRAM counters",
    ),
    Part(
        "memory.remapped",
        "quick",
        "reading",
        each("memory.remapped", remapped, "no row waits to be remapped, none failed"),
        "NVML: remapped rows",
    ),
    Part(
        "memory.retired",
        "quick",
        "reading",
        each("memory.retired", retired, f"at most {MANY_RETIRED} pages retired, none pending"),
        "NVML: retired pages",
    ),
    Part(
        "gpu.recovery",
        "quick",
        "reading",
        each("gpu.recovery", recovery, "the driver asks for no recovery"),
        "NVML: GPU recovery action",
    ),
    Part("gpu.inforom", "quick", "reading", each("gpu.inforom", inforom, "the InfoROM is intact"), "NVML: InfoROM"),
)
