"""XID and SXid: what the driver wrote into the kernel's log about GPUs and NVSwitches in this boot.

What is to be done comes from NVIDIA's catalogue (xid_table.py), from the text where the text decides, and never
from a date: lines count by boot, PCI address, code and minute since boot.
"""

from __future__ import annotations

import os
import re

from gpuprov.proof import kernel_log
from gpuprov.proof.check import check
from gpuprov.proof.checks import xid_table
from gpuprov.proof.checks.versions import pci_gpus
from gpuprov.proof.nvml.reading import address
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context
    from gpuprov.proof.worker import Report

_XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+)(?:, *(.*))?$")
_SXID = re.compile(r"nvidia-nvswitch\d*: SXid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+)(?:, *(.*))?$")
#: 154 says "... changed from 0x0 (None) to 0x1 (GPU Reset Required)".
_RECOVERY = re.compile(r"\bto 0x[0-9a-fA-F]+ \(([^)]*)\)")
_RECOVERIES = (
    ("none", "pass", "none"),
    ("node reboot", "fail", "reboot"),
    ("system reboot", "fail", "reboot"),
    ("drain and reset", "fail", "reset GPU"),
    ("gpu reset", "fail", "reset GPU"),
    ("bus reset", "fail", "reset GPU"),
    ("drain p2p", "fail", "reset GPU"),
)
_UUID = re.compile(r"GPU UUID:\s*(GPU-[0-9a-fA-F-]+)")
_WORDS_OF_SEVERITY = re.compile(r"(?i)\b(non-?fatal|fatal)\b")


def events(log: Message) -> list[Message]:
    """Return XIDs and SXids of *log*: kind, pci, code, minute, count, line; one for each minute of each. Pure."""
    found: dict[tuple[str, str, int, int | None], Message] = {}
    for entry in log["entries"]:
        for kind, pattern in (("xid", _XID), ("sxid", _SXID)):
            line = pattern.search(entry["text"])
            if line:
                minute = None if entry["at_s"] is None else int(entry["at_s"] // 60)
                key = (kind, address(line.group(1)), int(line.group(2)), minute)
                event = found.setdefault(key, _event(*key))
                event["count"] += 1
                event["line"], event["text"] = entry["text"][:200], (line.group(3) or "")[:200]
    return list(found.values())


def _event(kind: str, pci: str, code: int, minute: int | None) -> Message:
    return {"kind": kind, "pci": pci, "code": code, "minute": minute, "count": 0, "line": "", "text": ""}


def seen(root: str = "/") -> list[Message] | None:
    """Return the events of the running kernel's log, None when it cannot be read: for `differences`."""
    log = kernel_log.read(root)
    return None if log["error"] else events(log)


def judged(kind: str, code: int, text: str) -> tuple[str, str, str]:
    """Return verdict, action and meaning of one event, by catalogue and text. Pure."""
    if kind == "sxid":
        severity = _WORDS_OF_SEVERITY.search(text)
        if severity and severity.group(1).lower() == "fatal":
            return "fail", "reboot", "fatal error of an NVSwitch"
        return "warn", "monitor", "error of an NVSwitch that it survives" if severity else "error of an NVSwitch"
    meaning, resolution = xid_table.entry(code)
    verdict, action, advice = xid_table.RESOLUTIONS[resolution]
    if resolution == "XID_154":
        asked = _RECOVERY.search(text)
        wanted = asked.group(1).lower() if asked else ""
        for words, its, does in _RECOVERIES:
            if wanted.startswith(words):
                return its, does, f"the driver asks for: {asked.group(1) if asked else ''}"
    if resolution == "WORKFLOW_NVLINK5_ERR":
        severity = _WORDS_OF_SEVERITY.search(text)
        if severity and severity.group(1).lower() == "fatal":
            return "fail", "reset GPU", f"{meaning}, fatal; which unit is in its sub-code"
    return verdict, action, f"{meaning}; {advice}"


def run(context: Context, report: Report) -> None:
    """Judge the kernel's log of this boot."""
    report.stage("reading the kernel's log")
    log = kernel_log.read(context.root)
    for item in judge(log, _has_gpus(context)):
        uuid = _uuid(context, item["device"]) if item["device"] else ""
        if uuid:
            item["data"]["uuid"] = uuid
        report.check(item)


def _has_gpus(context: Context) -> bool:
    signs = (kernel_log.LAB, "proc/driver/nvidia")
    if any(os.path.exists(context.path(sign)) for sign in signs) or context.expect.get("gpus"):
        return True
    return bool(pci_gpus(context.path("sys")))


def _uuid(context: Context, pci: str) -> str:
    """Return the UUID of the GPU at a PCI address, as the driver's file says, "" where there is none."""
    try:
        with open(context.path("proc/driver/nvidia/gpus", pci, "information"), encoding="utf-8", errors="replace") as f:
            found = _UUID.search(f.read())
    except OSError:
        return ""
    return found.group(1) if found else ""


def judge(log: Message, has_gpus: bool = True) -> list[Message]:
    """Return the checks of XIDs and SXids: one for each address and code that needs something done. Pure."""
    found = events(log) if log["error"] is None else []
    if not found and not has_gpus:
        return [check(name, "skip", "no NVIDIA GPU on the PCI bus") for name in ("xid", "sxid")]
    if log["error"] is not None:
        reason = f"the kernel's log cannot be read: {log['error']}"
        return [check(name, "unknown", reason) for name in ("xid", "sxid")]
    return [item for kind in ("xid", "sxid") for item in _kind(kind, found, log)]


def _kind(kind: str, found: list[Message], log: Message) -> list[Message]:
    groups: dict[tuple[str, int], list[Message]] = {}
    for event in found:
        if event["kind"] == kind:
            groups.setdefault((event["pci"], event["code"]), []).append(event)
    fabric = kind == "sxid" and any(event["kind"] == "xid" and event["code"] == 74 for event in found)
    checks, quiet = [], []
    for (pci, code), its in groups.items():
        verdict, action, meaning = judged(kind, code, its[-1]["text"])
        if fabric:
            verdict, action, meaning = "fail", "reboot", f"{meaning}; with XID 74 on a GPU it is a fault of the fabric"
        if verdict == "pass":
            quiet += its
        else:
            checks.append(_told(kind, pci, code, its, log, (verdict, action, meaning)))
    return [*checks, _quiet(kind, quiet, bool(checks), log)]


def _told(kind: str, pci: str, code: int, its: list[Message], log: Message, what: tuple[str, str, str]) -> Message:
    verdict, action, meaning = what
    word = "XID" if kind == "xid" else "SXid"
    minutes = [event["minute"] for event in its if event["minute"] is not None]
    when = f", last in minute {max(minutes)} since boot" if minutes else ""
    times = f" in {len(its)} different minutes" if len(its) > 1 else ""
    data = {
        "evidence": [event["line"] for event in its[-3:]],
        "address": pci,
        "code": code,
        "boot_id": log["boot_id"],
        "catalogue": xid_table.CATALOGUE_DATE,
    }
    reason = f"{word} {code} on {pci}{times}{when}: {meaning}"
    return check(kind, verdict, reason, measured=code, expected="none", device=pci, action=action, data=data)


def _quiet(kind: str, its: list[Message], others: bool, log: Message) -> Message:
    """Return the check of what needs nothing done. A log without its beginning may have lost some: not all is well."""
    word = "XID" if kind == "xid" else "SXid"
    data: Message = {"source": log["source"], "boot_id": log["boot_id"], "entries": len(log["entries"])}
    counts: dict[str, int] = {}
    for event in its:
        counts[f"{event['code']} on {event['pci']}"] = counts.get(f"{event['code']} on {event['pci']}", 0) + 1
    if its:
        data["evidence"] = [event["line"] for event in its[-3:]]
    told = ", ".join(f"{what} ({count}x)" for what, count in list(counts.items())[:6])
    if log["truncated"] and not others:
        reason = f"no {word} in what is left of the kernel's log, but the beginning of this boot is gone from it"
        return check(kind, "unknown", reason, data=data)
    no_other = " other" if others else ""
    ending = f", but for {told}, of which NVIDIA says to ignore them" if told else ""
    reason = f"no{no_other} {word} since boot that needs anything done{ending}"
    return check(kind, "pass", reason, measured=len(its), data=data, action="monitor" if its else "none")


PARTS = (Part("xid", "quick", "host", run, "the kernel's log: /dev/kmsg, else the journal"),)
