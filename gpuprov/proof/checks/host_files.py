"""How the host's checks read: files below the root of the context, and a part out of a reader and a judge.

Absent and unknown are kept apart: what is not there is None or empty, what cannot be read raises Untold, and
becomes a check that is unknown with the reason.
"""

from __future__ import annotations

import errno
import os
import subprocess

from gpuprov.proof.check import check
from gpuprov.proof.checks.versions import withheld
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

#: What the kernel says where nothing is; ESRCH: the process has just ended.
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO, errno.ESRCH)
#: What systemd, Docker and Podman leave in the containers that they start.
_CONTAINER_MARKS = ("/run/systemd/container", "/.dockerenv", "/run/.containerenv")
_GPU_CLASSES = ("0x0300", "0x0302")


class Untold(Exception):
    """Something cannot be told; str() is the reason."""


class Absent(Exception):
    """The check is about nothing that this host has; str() says what is missing."""


def host_part(
    name: str,
    read: Callable[[Context], Any],
    judge: Callable[[Any], Iterable[Message]],
    reads: str,
    tier: str = "quick",
    deadline_s: float = 5.0,
) -> Part:
    """Return the part that judges what *read* finds; where nothing can be judged, it says why."""

    def run(context: Context, report: Any) -> None:
        report.stage(f"reading {reads}")
        try:
            facts = read(context)
        except Untold as error:
            report.check(check(name, "unknown", str(error)))
        except Absent as error:
            report.check(check(name, "skip", str(error)))
        else:
            for found in judge(facts):
                report.check(short(found))

    return Part(name, tier, "host", run, reads, deadline_s)


def short(found: Message) -> Message:
    """Return a check whose texts fit into one line of the wire, whatever names the host has. Pure."""
    evidence = found["data"].get("evidence")
    more = {"evidence": [cut(str(line), 150) for line in evidence[:16]]} if evidence else {}
    return dict(found, reason=cut(found["reason"], 500), data=dict(found["data"], **more))


def cut(line: str, most: int) -> str:
    """Return *line*, or its first *most* characters with dots. Pure."""
    return line if len(line) <= most else line[: most - 3] + "..."


def text(context: Context, path: str) -> str | None:
    """Return a file's text without white space around it; None when there is no such file. Raises Untold."""
    try:
        with open(context.path(path), encoding="utf-8", errors="replace") as f:
            return f.read().strip()
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise Untold(f"cannot read {path}: {error.strerror}") from None


def needed(context: Context, path: str) -> str:
    """Return a file's text. Raises Untold, also when there is no such file."""
    found = text(context, path)
    if found is None:
        raise Untold(f"cannot read {path}: there is no such file")
    return found


def number(context: Context, path: str) -> int | None:
    """Return the whole number in a file; None when there is no such file. Raises Untold."""
    found = text(context, path)
    return None if found is None else whole(found, path)


def whole(found: str, path: str) -> int:
    """Return *found* as a whole number. Raises Untold, naming *path* where it was read. Pure."""
    try:
        return int(found, 0) if found.startswith("0x") else int(found)
    except ValueError:
        raise Untold(f"{path} has no whole number but {found[:40]!r}") from None


def names(context: Context, folder: str) -> list[str]:
    """Return the sorted names in a folder; none when there is no such folder. Raises Untold."""
    try:
        return sorted(os.listdir(context.path(folder)))
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        raise Untold(f"cannot list {folder}: {error.strerror}") from None


def there(context: Context, path: str) -> bool:
    """Say whether a file or folder is there. Raises Untold when that cannot be told."""
    try:
        os.stat(context.path(path))
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise Untold(f"cannot look at {path}: {error.strerror}") from None
    return True


def set_of(listed: str) -> set[int]:
    """Return the numbers of the kernel's "0-3,8". Pure. Raises Untold."""
    found: set[int] = set()
    for piece in listed.split(","):
        if piece.strip():
            first, _, last = piece.strip().partition("-")
            if not (first.isdigit() and (last or first).isdigit()):
                raise Untold(f"{listed[:60]!r} is no list of numbers")
            found.update(range(int(first), int(last or first) + 1))
    return found


def meminfo(context: Context) -> dict[str, int]:
    """Return /proc/meminfo in bytes, but for the counts of huge pages, which are counts. Raises Untold."""
    found = {}
    for line in needed(context, "/proc/meminfo").splitlines():
        key, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[key] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    if "MemTotal" not in found:
        raise Untold("/proc/meminfo has no MemTotal")
    return found


def uptime_s(context: Context) -> float:
    """Return the seconds since the kernel started. Raises Untold."""
    words = needed(context, "/proc/uptime").split()
    try:
        return float(words[0])
    except (IndexError, ValueError):
        raise Untold("/proc/uptime has no number") from None


def gpus(context: Context) -> list[str]:
    """Return the PCI addresses of NVIDIA's display and 3D controllers that are for this host to use. Raises Untold."""
    found = []
    for address in names(context, "/sys/bus/pci/devices"):
        top = f"/sys/bus/pci/devices/{address}"
        kind = (text(context, f"{top}/class") or "")[:6]
        if text(context, f"{top}/vendor") == "0x10de" and kind in _GPU_CLASSES and not withheld(context.path(top)):
            found.append(address)
    return found


def in_container(context: Context) -> bool:
    """Say whether this is the inside of a container: mounts, services and the clock are its host's business."""
    return any(there(context, path) for path in _CONTAINER_MARKS)


def is_guest(context: Context) -> bool:
    """Say whether this is a virtual machine, as its processor says. Raises Untold."""
    return any(
        line.startswith("flags") and "hypervisor" in line.split()
        for line in needed(context, "/proc/cpuinfo").splitlines()
    )


def said(context: Context, argv: Sequence[str], timeout_s: float = 3.0) -> str | None:
    """Return what a program of the running host prints; None when it is not installed. Raises Untold."""
    if os.path.realpath(context.root) != "/":
        return None  # programs tell of the host that runs them, not of a folder
    environment = dict(os.environ, LC_ALL="C", PATH=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin")
    try:
        done = subprocess.run(  # noqa: PLW1510 - the exit code is looked at
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, env=environment
        )
    except FileNotFoundError:
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Untold(f"{argv[0]} gave no answer: {error}") from None
    if done.returncode:
        why = " ".join(done.stderr.decode("utf-8", "replace").split())[:200]
        raise Untold(f"{' '.join(argv)} ended with exit code {done.returncode}: {why or 'it said nothing'}")
    return done.stdout.decode("utf-8", "replace")


def some(count: int, noun: str) -> str:
    """Return "1 port", "2 ports". Pure."""
    return f"{count} {noun}" + ("" if count == 1 else "es" if noun.endswith(("s", "x")) else "s")


def listed(items: Iterable[object], most: int = 6) -> str:
    """Return "a, b and 3 more". Pure."""
    words = [str(item) for item in items]
    more = len(words) - most
    return ", ".join(words) if more <= 0 else f"{', '.join(words[:most])} and {more} more"


def span(seconds: float) -> str:
    """Return a length of time for a person, as "3.2 h". Pure."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
