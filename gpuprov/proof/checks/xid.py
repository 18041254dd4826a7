"""XID and SXid: what the driver wrote into the kernel's log about GPUs and NVSwitches in this boot.

What is to be done comes from NVIDIA's catalogue (xid_table.py), from the text where the text decides, and never
from a date: lines count by boot, PCI address, code and minute since boot. What is over is told and not judged: what a
job did more than a day ago, and what came before the GPU was reset or the driver loaded anew.
"""

from __future__ import annotations

import os
import re

from gpuprov.proof import kernel_log
from gpuprov.proof.check import check
from gpuprov.proof.checks import xid_table
from gpuprov.proof.checks.each import minutes_up
from gpuprov.proof.checks.host_files import span
from gpuprov.proof.checks.versions import pci_gpus
from gpuprov.proof.nvml.reading import address
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context
    from gpuprov.proof.worker import Report

#: A slice of a GPU is named behind its address: (PCI:0000:38:00 GPU-I:05).
_XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)(?: [^)]*)?\): (\d+)(?:, *(.*))?$")
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
#: What the driver says each time that it is loaded.
LOADED = "NVRM: loading NVIDIA UNIX"
#: After so long, what a job did is no news, and neither is an error that hardware survived.
OLD_S = 24 * 3600.0
_IGNORED = "of which NVIDIA says to ignore them"
_OLD = "more than a day ago"
_OVER = "before the GPU was reset or the driver was loaded anew"
_RANK = ("pass", "warn", "fail")
_WORDS_OF_SEVERITY = re.compile(r"(?i)\b(non-?fatal|fatal)\b")


def events(log: Message) -> list[Message]:
    """Return XIDs and SXids of *log*: kind, pci, code, minute, count, line; one for each minute of each. Pure."""
    found: dict[tuple[str, str, int, int | None], Message] = {}
    for entry in log["entries"]:
        if LOADED in entry["text"]:
            _end(found.values(), "")
        for kind, pattern in (("xid", _XID), ("sxid", _SXID)):
            line = pattern.search(entry["text"])
            if line:
                minute = None if entry["at_s"] is None else int(entry["at_s"] // 60)
                key = (kind, address(line.group(1)), int(line.group(2)), minute)
                event = found.setdefault(key, _event(*key))
                _add(event, entry, (line.group(3) or "")[:200])
                if event["code"] == 154 and judged(kind, 154, event["text"])[0] == "pass":
                    _end(found.values(), event["pci"])
    return list(found.values())


def _event(kind: str, pci: str, code: int, minute: int | None) -> Message:
    return {"kind": kind, "pci": pci, "code": code, "minute": minute, "count": 0, "line": "", "text": "", "over": False}


def _add(event: Message, entry: Message, text: str) -> None:
    """Count a line. An SXid is told in several lines, of which only the first says whether it is fatal."""
    kind, code = event["kind"], event["code"]
    event["count"] += 1
    event["over"] = False
    graded = bool(_WORDS_OF_SEVERITY.search(event["text"]))
    worse = _RANK.index(judged(kind, code, text)[0]) >= _RANK.index(judged(kind, code, event["text"])[0])
    if not graded or code == 154 or (worse and _WORDS_OF_SEVERITY.search(text)):
        event["line"], event["text"] = entry["text"][:200], text


def _end(found: Iterable[Message], pci: str) -> None:
    """Mark what came before a reset of the GPU at *pci*, of all GPUs where it is "": it tells of what is over."""
    for event in found:
        if event["kind"] == "xid" and pci in ("", event["pci"]):
            event["over"] = True


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
    minutes = minutes_up(context)
    log = dict(kernel_log.read(context.root), now_s=None if minutes is None else minutes * 60)
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
    quiet: list[tuple[Message, str]] = []
    fabric = kind == "sxid" and any(event["kind"] == "xid" and event["code"] == 74 for event in found)
    for event in found:
        why = _why_quiet(event, log.get("now_s"), fabric) if event["kind"] == kind else ""
        if why:
            quiet.append((event, why))
        elif event["kind"] == kind:
            groups.setdefault((event["pci"], event["code"]), []).append(event)
    checks = []
    for (pci, code), its in groups.items():
        worst = max(its, key=lambda event: _RANK.index(judged(kind, code, event["text"])[0]))
        worst = its[-1] if code == 154 else worst  # there the last word holds
        verdict, action, meaning = judged(kind, code, worst["text"])
        if fabric:
            verdict, action, meaning = "fail", "reboot", f"{meaning}; with XID 74 on a GPU it is a fault of the fabric"
        checks.append(_told(kind, pci, code, its, log, (verdict, action, meaning)))
    return [*checks, _quiet(kind, quiet, bool(checks), log)]


def _why_quiet(event: Message, now_s: float | None, fabric: bool) -> str:
    """Return why nothing is to be done about an event any more, "" when something is. Pure."""
    verdict, action, _ = judged(event["kind"], event["code"], event["text"])
    if fabric:
        return ""
    if verdict == "pass":
        return _IGNORED
    if event["over"] and (action in ("reset GPU", "restart job") or event["code"] == 154):
        return _OVER
    survived = event["kind"] == "sxid" or xid_table.entry(event["code"])[1] == "WORKFLOW_NVLINK5_ERR"
    if verdict == "warn" and (action == "restart job" or survived) and event["minute"] is not None:
        return _OLD if now_s is not None and now_s - event["minute"] * 60 > OLD_S else ""
    return ""


def _told(kind: str, pci: str, code: int, its: list[Message], log: Message, what: tuple[str, str, str]) -> Message:
    verdict, action, meaning = what
    word = "XID" if kind == "xid" else "SXid"
    minutes = [event["minute"] for event in its if event["minute"] is not None]
    when = f", last {_ago(max(minutes), log.get('now_s'))}" if minutes else ""
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


def _ago(minute: int, now_s: float | None) -> str:
    """Return when *minute* since boot was, as a person on call wants it. Pure."""
    if now_s is None:
        return f"in minute {minute} since boot"
    return f"{span(max(0.0, now_s - minute * 60))} ago"


def _quiet(kind: str, its: list[tuple[Message, str]], others: bool, log: Message) -> Message:
    """Return the check of what needs nothing done. A log without its beginning may have lost some: not all is well."""
    word = "XID" if kind == "xid" else "SXid"
    data: Message = {"source": log["source"], "boot_id": log["boot_id"], "entries": len(log["entries"])}
    counts: dict[tuple[str, str], int] = {}
    for event, why in its:
        what = (f"{event['code']} on {event['pci']}", why)
        counts[what] = counts.get(what, 0) + 1
    if its:
        data["evidence"] = [event["line"] for event, _ in its[-3:]]
    reached = _reach_s(log)
    if log["truncated"] and not others and (reached is None or reached < OLD_S):
        reason = f"no {word} in what is left of the kernel's log, but the beginning of this boot is gone from it"
        return check(kind, "unknown", reason, data=data)
    since = "since boot"
    if log["truncated"] and reached is not None:
        since = f"in the last {reached / 3600:.0f} h, as far back as the kernel's log goes,"
    parts = []
    for why in (_IGNORED, _OLD, _OVER):
        told = [f"{what} ({count}x)" for (what, its_why), count in counts.items() if its_why == why]
        parts += [f"{', '.join(told[:6])}, {why}"] if told else []
    ending = f", but for {'; '.join(parts)}" if parts else ""
    reason = f"no{' other' if others else ''} {word} {since} that needs anything done{ending}"
    return check(kind, "pass", reason, measured=len(its), data=data, action="monitor" if its else "none")


def _reach_s(log: Message) -> float | None:
    """Return for how long what is left of the log has been written, None where it does not say."""
    first = next((entry["at_s"] for entry in log["entries"] if entry["at_s"] is not None), None)
    now_s = log.get("now_s")
    return None if first is None or now_s is None else float(now_s - first)


PARTS = (Part("xid", "quick", "host", run, "the kernel's log: /dev/kmsg, else the journal"),)
