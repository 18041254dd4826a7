"""The kernel's log of this boot: from /dev/kmsg, else from the journal, else why it could not be read.

    read(root) -> {"source", "boot_id", "entries": [{"at_s", "text"}, ...], "truncated", "error"}

at_s is in seconds since boot, None where a line does not say; no date is ever guessed. truncated: the kernel's
buffer has dropped the beginning of the boot, so that what is not in the log may still have happened. error is
None, or the sentence that says why nothing is known: then entries are empty and prove nothing.
"""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.proof.check import Message

#: What stands for the kernel's log on a rehearsal host: its kernel's own is that of the machine it runs on.
LAB = "etc/gpuprov-lab/kmsg"
#: The kernel's longest record.
_RECORD_BYTES = 8192
#: Lines that are kept, the newest; a log that floods must not fill the memory.
MOST_ENTRIES = 50_000
_JOURNAL_PATIENCE_S = 5.0
_JOURNAL = ("journalctl", "--dmesg", "--boot", "--output=json", "--no-pager", "--quiet")
_RECORD = re.compile(r"^\d+,(\d+),(\d+),[^;]*;(.*)$")
_DMESG = re.compile(r"^(?:<\d+>)?\[\s*(\d+\.\d+)\]\s?(.*)$")
_ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})")
#: The first thing that every kernel says.
_BEGINNING = "Linux version "


def read(root: str = "/") -> Message:
    """Return the log of the kernel that is running. Never raises for a log that cannot be read."""
    boot_id = _boot_id(root)
    lab = os.path.join(root, LAB)
    if os.path.exists(lab):
        return dict(_of_file(lab), boot_id=boot_id)
    kmsg = _of_kmsg(os.path.join(root, "dev/kmsg"))
    if kmsg["error"] is None and not kmsg["truncated"]:
        return dict(kmsg, boot_id=boot_id)
    journal = _of_journal() if root == "/" else _none("journalctl", "the journal is only asked on the host itself")
    return dict(better(kmsg, journal), boot_id=boot_id)


def better(kmsg: Message, journal: Message) -> Message:
    """Return the log that tells more of this boot. Pure."""
    if kmsg["error"] is not None and journal["error"] is not None:
        return dict(kmsg, source="", error=f"{kmsg['error']}; {journal['error']}")
    if kmsg["error"] is not None:
        return journal
    if journal["error"] is not None or (journal["truncated"] and _begins(journal) >= _begins(kmsg)):
        return kmsg
    return journal


def _begins(log: Message) -> float:
    return next((entry["at_s"] for entry in log["entries"] if entry["at_s"] is not None), float("inf"))


def _boot_id(root: str) -> str | None:
    try:
        with open(os.path.join(root, "proc/sys/kernel/random/boot_id"), encoding="ascii") as f:
            return f.read().strip() or None
    except (OSError, ValueError):
        return None


def _none(source: str, error: str) -> Message:
    return {"source": source, "entries": [], "truncated": False, "error": error}


def _log(source: str, entries: list[Message], truncated: bool) -> Message:
    kept = entries[-MOST_ENTRIES:]
    return {"source": source, "entries": kept, "truncated": truncated or len(kept) < len(entries), "error": None}


def _of_kmsg(path: str) -> Message:
    """Read the kernel's ring buffer, a record at a time, up to its end."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        return _none(path, f"{path} cannot be read: {error.strerror}")
    lines: list[str] = []
    overwritten = False
    try:
        while len(lines) < 4 * MOST_ENTRIES:
            try:
                record = os.read(fd, _RECORD_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EPIPE:  # this record was overwritten while we read; the next is still there
                    overwritten = True
                    continue
                return _none(path, f"{path} cannot be read: {error.strerror}")
            if not record:
                break
            lines += record.decode("utf-8", "replace").rstrip("\n").split("\n")
    finally:
        os.close(fd)
    entries, first = parsed(lines)
    if not entries:
        return _none(path, f"{path} has no entries, and a running kernel has some")
    return _log(path, entries, overwritten or first != 0)


def _of_file(path: str) -> Message:
    """Read a rehearsal host's log. It is as short as it is: nothing was dropped from it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            entries, _ = parsed(f.read().split("\n"))
    except OSError as error:
        return _none(path, f"{path} cannot be read: {error.strerror}")
    return _log(path, entries, truncated=False)


def parsed(lines: list[str]) -> tuple[list[Message], int | None]:
    """Return the entries of a log's lines, and the number of the first record that has one. Pure.

    Takes /dev/kmsg's records (6,339,5140900,-;text), dmesg's lines ([5.140900] text), and lines without a time.
    """
    entries: list[Message] = []
    first = None
    for line in lines:
        record, dmesg = _RECORD.match(line), _DMESG.match(line)
        if record:
            if first is None:
                first = int(record.group(1))
            entries.append({"at_s": int(record.group(2)) / 1e6, "text": _unescaped(record.group(3))})
        elif dmesg:
            entries.append({"at_s": float(dmesg.group(1)), "text": dmesg.group(2)})
        elif line.strip() and not line.startswith(" "):  # an indented line belongs to the record above: a dictionary
            entries.append({"at_s": None, "text": line.strip()})
    return entries, first


def _unescaped(text: str) -> str:
    """Return a record's text with its escapes undone: the kernel escapes bytes beyond ASCII, and backslashes."""
    if "\\x" not in text:
        return text
    raw = _ESCAPE.sub(lambda found: chr(int(found.group(1), 16)), text)
    try:
        return raw.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return raw


def _of_journal() -> Message:
    """Ask the journal for the kernel's messages of this boot; a user without permission gets none of them."""
    try:
        done = subprocess.run(
            _JOURNAL,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_JOURNAL_PATIENCE_S,
            check=False,
        )
    except OSError as error:
        return _none("journalctl", f"journalctl cannot be run: {error.strerror}")
    except subprocess.TimeoutExpired:
        return _none("journalctl", f"journalctl did not end within {_JOURNAL_PATIENCE_S:g} s")
    entries = journalled(done.stdout.decode("utf-8", "replace").split("\n"))
    if not entries:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[:200]
        return _none("journalctl", f"the journal shows this user no kernel messages{': ' + said if said else ''}")
    return _log("journalctl", entries, not any(entry["text"].startswith(_BEGINNING) for entry in entries[:50]))


def journalled(lines: list[str]) -> list[Message]:
    """Return the entries of journalctl's JSON lines; what is no such line is left out. Pure."""
    entries: list[Message] = []
    for line in lines:
        try:
            item: Any = json.loads(line)
        except ValueError:
            continue
        if not isinstance(item, dict) or "MESSAGE" not in item:
            continue
        # of the source: when the kernel said it; the other is when the journal heard it, seconds later at boot
        at = item.get("_SOURCE_MONOTONIC_TIMESTAMP", item.get("__MONOTONIC_TIMESTAMP"))
        at_s = int(at) / 1e6 if isinstance(at, str) and at.isdigit() else None
        entries.append({"at_s": at_s, "text": _message(item["MESSAGE"])})
    return entries


def _message(value: Any) -> str:
    """Return a message's text; the journal writes what is not UTF-8 as a list of bytes, and a huge one as null."""
    if isinstance(value, list):
        return bytes(b for b in value if isinstance(b, int) and 0 <= b < 256).decode("utf-8", "replace")
    return value if isinstance(value, str) else ""
