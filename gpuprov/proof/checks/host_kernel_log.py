"""The kernel's log of this boot, by the rules of kernel_rules.py: one check for each rule that has lines."""

from __future__ import annotations

from collections import Counter

from gpuprov.proof import kernel_log
from gpuprov.proof.check import check
from gpuprov.proof.checks.host_files import (
    Absent,
    Untold,
    cut,
    gpus,
    host_part,
    in_container,
    listed,
    some,
    span,
    uptime_s,
)
from gpuprov.proof.checks.kernel_rules import RULES
from gpuprov.proof.checks.xid import LOADED, OLD_S

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuprov.proof.check import Message
    from gpuprov.proof.checks.kernel_rules import Rule
    from gpuprov.proof.parts import Context

NAME = "kernel.log"


def read(context: Context) -> Message:
    """Return the log as kernel_log.read does, with the time since boot. Raises Untold when there is none."""
    log = kernel_log.read(context.root)
    if log["error"] is not None:
        if in_container(context) and not gpus(context):
            raise Absent("a container is not shown the kernel's log, and there is no GPU here: ask its host")
        raise Untold(f"the kernel's log could not be read: {log['error']}")
    try:
        now_s = uptime_s(context)
    except Untold:
        now_s = None
    return dict(log, now_s=now_s)


def judge(log: Message) -> list[Message]:
    """Judge the log. Pure."""
    found: dict[str, list[Message]] = {}
    for entry in log["entries"]:
        if LOADED in entry["text"]:
            found.pop("nvidia-init", None)  # another start of the driver: what counts is how that one went
        rule = match(entry["text"])
        if rule:
            found.setdefault(rule.key, []).append(entry)
    spoken = [r for r in RULES if len(found.get(r.key, ())) >= r.least]
    over = [rule for rule in spoken if rule.passes and _is_old(found[rule.key][-1], log["now_s"])]
    checks = [_of(rule, found[rule.key], log["now_s"]) for rule in spoken if rule not in over]
    return checks or [_nothing(log, {rule.key: len(found[rule.key]) for rule in over})]


def _is_old(entry: Message, now_s: float | None) -> bool:
    return now_s is not None and entry["at_s"] is not None and now_s - entry["at_s"] > OLD_S


def match(line: str, rules: Sequence[Rule] = RULES) -> Rule | None:
    """Return the first rule that a line fits, None for none. Pure."""
    return next((rule for rule in rules if rule.pattern.search(line)), None)


def _of(rule: Rule, entries: list[Message], now_s: float | None) -> Message:
    whom = Counter(_who(rule, entry["text"]) for entry in entries)
    names = [name for name, _ in whom.most_common() if name]
    about = f" ({listed(names, 3)})" if names else ""
    last_s = entries[-1]["at_s"]
    when = f", the last {span(now_s - last_s)} ago" if now_s is not None and last_s is not None else ""
    reason = f"{rule.means}{about}: {some(len(entries), 'line')} since the start{when}"
    kept = [*entries[:1], *entries[-3:]] if len(entries) > 4 else entries
    evidence = [_line(entry) for entry in kept]
    more = {"evidence": evidence, "rule": rule.key}
    return check(f"{NAME}.{rule.key}", rule.verdict, reason, len(entries), 0, "lines", "", rule.action, more)


def _who(rule: Rule, line: str) -> str:
    match = rule.pattern.search(line)
    return (match.groupdict().get("who") or "") if match else ""


def _line(entry: Message) -> str:
    at = f"[{entry['at_s']:.3f}] " if entry["at_s"] is not None else ""
    return cut(at + entry["text"], 150)


def _nothing(log: Message, over: dict[str, int]) -> Message:
    count = len(log["entries"])
    if log["truncated"]:
        reason = f"no sign of a fault in the {count} lines that are left of the kernel's log; its beginning is lost"
    else:
        reason = f"no sign of a fault in the {count} lines of the kernel's log of this boot"
    told = ", ".join(f"{rule} ({some(count, 'line')})" for rule, count in over.items())
    reason += f"; but for more than a day ago: {told}" if over else ""
    return check(NAME, "pass", reason, measured=0, expected=0, unit="lines", data={"truncated": log["truncated"]})


PARTS = (host_part(NAME, read, judge, "/dev/kmsg or the journal", deadline_s=8.0),)
