"""Running apt-get: without questions, after the locks are free, with failures as one sentence."""

from __future__ import annotations

import os
import re
import time

from gpuprov.agent.modules.base import ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.modules.base import Call
    from gpuprov.agent.process import Finished

LISTS = "/var/lib/apt/lists"
#: Which locks stand in the way of which command.
_LIST_LOCKS = (LISTS + "/lock",)
_DPKG_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/cache/apt/archives/lock")
#: No questions, the distribution's own language, no pager with a list of changes.
_ENV = {"DEBIAN_FRONTEND": "noninteractive", "DEBIAN_PRIORITY": "critical", "APT_LISTCHANGES_FRONTEND": "none"}

#: (code, what apt or dpkg prints, our sentence, hint). The first that matches is the reason.
_REASONS = [
    (
        "package-lock",
        r"(?:Could not get lock|Unable to acquire the dpkg frontend lock|Unable to lock) ?\S*"
        r"(?:\. It is held by process (?P<a>\d+ \(.*\)))?",
        "the package lock is held by process {a}",
        "wait for it, or raise lock_timeout",
    ),
    (
        "root-needed",
        r"are you root\?|requested operation requires superuser|lock[^\n]*\(13: Permission denied\)",
        "packages can be changed by root only",
        "become: true is missing",
    ),
    (
        "dpkg-interrupted",
        r"dpkg was interrupted",
        "an earlier run of dpkg was interrupted",
        "dpkg --configure -a on the host finishes it",
    ),
    (
        "disk-full",
        r"No space left on device|You don't have enough free space in (?P<a>[^\s]+?)\.?$",
        "the disk is full {a}",
        "apt-get clean frees /var/cache/apt",
    ),
    (
        "package-unknown",
        r"Unable to locate package (?P<a>\S+)|Couldn't find any package by (?:regex|glob) '(?P<b>[^']+)'",
        "package {a} is in none of the host's package sources",
        "check the name; update_cache: true reads the sources again",
    ),
    (
        "version-unknown",
        r"Version '(?P<a>[^']+)' for '(?P<b>[^']+)' was not found",
        "version {a} of package {b} is in none of the host's package sources",
        "apt-cache policy on the host shows what there is; update_cache: true reads the sources again",
    ),
    (
        "package-unavailable",
        r"Package '?(?P<a>\S+?)'? has no installation candidate",
        "package {a} cannot be installed from any of the host's package sources",
        "it was replaced or its source is missing; update_cache: true reads the sources again",
    ),
    (
        "packages-held",
        r"Held packages were changed",
        "a package on hold would have to change",
        "apt-mark showhold lists them; allow_change_held_packages: true permits it",
    ),
    (
        "downgrade",
        r"Packages were downgraded and -y was used|downgraded.*without --allow-downgrades",
        "a package would have to be downgraded",
        "allow_downgrade: true permits it",
    ),
    (
        "essential",
        r"Essential packages were removed|Removing essential system-critical packages",
        "an essential package would have to be removed",
        "refused: the host would break",
    ),
    (
        "dependencies",
        r"you have held broken packages|Unmet dependencies|[Tt]he following packages have unmet dependencies",
        "the dependencies cannot be satisfied{detail}",
        "apt-get -f install on the host shows what is in conflict",
    ),
    (
        "not-signed",
        r"(?:NO_PUBKEY|EXPKEYSIG|BADSIG) (?P<a>\S+)|The repository '(?P<b>[^']+)' is (?:no longer|not) signed",
        "a package source is not signed by a known key ({a})",
        "install the source's key, and name it with signed-by",
    ),
    (
        "not-authenticated",
        r"There were unauthenticated packages|cannot be authenticated",
        "the packages come from a source that is not signed",
        "allow_unauthenticated: true permits it",
    ),
    (
        "hash-mismatch",
        r"Hash Sum mismatch",
        "what was downloaded is not what the source announced (hash sum mismatch)",
        "a mirror is being updated or a proxy is broken; try again later",
    ),
    (
        "network",
        r"(?:Temporary failure resolving|Could not resolve) '(?P<a>[^']+)'|Could not connect to (?P<b>\S+)"
        r"|Connection timed out|Unable to connect to (?P<c>[^\s:]+)",
        "the package source {a} cannot be reached",
        "check the host's network, DNS and proxy",
    ),
    (
        "download",
        r"Failed to fetch (?P<a>\S+)\s+(?P<b>[^\n]+)",
        "{a} cannot be fetched: {b}",
        "when it is not there any more: update_cache: true reads the sources again",
    ),
    (
        "script-failed",
        r"Errors were encountered while processing:\s+(?P<a>\S+)|dpkg: error processing \S+ (?P<b>\S+)",
        "installing {a} failed on the host{detail}",
        "dpkg --configure -a on the host shows it again",
    ),
]
_UNMET = re.compile(r"^ (\S+) ?: ((?:Pre)?Depends|Conflicts|Breaks): (.*)$", re.MULTILINE)
_DPKG_SAID = re.compile(r"^ (.*(?:exit status \d+|conflict|trying to overwrite).*)$", re.MULTILINE)


def apt_get(call: Call, *words: str, simulate: bool = False) -> Finished:
    """Run apt-get with *words* to its end. Waits for locks, finishes an interrupted dpkg once.

    Raises ModuleError with the reason when it fails. simulate changes nothing and needs no lock.
    """
    if simulate:
        done = _run(call, ["apt-get", "-s", "-q", "-o", "Debug::NoLocking=true", *words])
        if done.rc != 0:
            raise failure(done)
        return done
    deadline = time.monotonic() + _patience_s(call)
    healed = False
    while True:
        wait_for_locks(call, _LIST_LOCKS if words[0] == "update" else _DPKG_LOCKS, deadline)
        left_s = max(1, int(deadline - time.monotonic()))
        done = _run(
            call, ["apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=%d" % left_s, *_dpkg_options(call), *words]
        )
        if done.rc == 0:
            return done
        error = failure(done)
        if error.code == "dpkg-interrupted" and not healed:
            healed = True
            call.warnings.append("an earlier run of dpkg was interrupted; dpkg --configure -a finished it")
            configure(call)
        elif error.code != "package-lock" or time.monotonic() >= deadline:
            raise error


def configure(call: Call) -> None:
    """Run dpkg --configure -a. Raises ModuleError."""
    done = _run(call, ["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"])
    if done.rc != 0:
        raise failure(done)


def _run(call: Call, words: list[str]) -> Finished:
    try:
        return call.system.run(words, {**_ENV, **call.env}, timeout_s=call.timeout_s, on_line=call.output)
    except FileNotFoundError:
        hint = "the apt module is for Debian and Ubuntu"
        raise ModuleError("%s is not on this host" % words[0], hint, code="program-missing") from None


def _dpkg_options(call: Call) -> list[str]:
    words = []
    for option in str(call.args.get("dpkg_options") or "").split(","):
        if option.strip():
            words += ["-o", "Dpkg::Options::=--%s" % option.strip()]
    return [*words, "-o", "Dpkg::Use-Pty=0"]


def _patience_s(call: Call) -> float:
    seconds = float(call.args.get("lock_timeout", 60))
    return seconds if seconds >= 0 else 7 * 86400.0


def wait_for_locks(call: Call, paths: tuple[str, ...], deadline: float) -> None:
    """Wait until nobody holds the locks. Raises ModuleError that names the holder at the deadline."""
    told = 0.0
    while True:
        holders = [pid for pid in map(_holder, paths) if pid]
        if not holders:
            return
        who = "process %d (%s)" % (holders[0], _program(call, holders[0]))
        if time.monotonic() >= deadline:
            message = "the package lock is held by %s" % who
            raise ModuleError(message, "wait for it, or raise lock_timeout", code="package-lock")
        if time.monotonic() - told > 10:
            told = time.monotonic()
            call.output("stdout", "waiting for the package lock held by %s" % who)
        time.sleep(0.5)


def _holder(path: str) -> int:
    """Return the pid that holds a POSIX lock on *path*, or 0. What cannot be opened is left to apt."""
    import fcntl
    import struct

    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        question = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack("hhqqi4x", fcntl.fcntl(fd, fcntl.F_GETLK, question))
    finally:
        os.close(fd)
    return 0 if kind == fcntl.F_UNLCK else max(int(pid), 0)


def _program(call: Call, pid: int) -> str:
    words = call.system.read_text("/proc/%d/cmdline" % pid).split("\0")
    names = [os.path.basename(word) for word in words[:2] if word and not word.startswith("-")]
    if len(names) > 1 and names[0].startswith(("python", "perl", "sh", "bash")):
        return names[1]
    return names[0] if names else call.system.read_text("/proc/%d/comm" % pid).strip() or "of another container"


def failure(done: Finished) -> ModuleError:
    """Return the reason why apt-get or dpkg failed, as one sentence."""
    text = done.err + "\n" + done.out
    keys: dict[str, Any] = {"rc": done.rc, "stdout": done.out, "stderr": done.err}
    if done.timed_out:
        return ModuleError("the package manager did not end: %s" % done.why, code="timeout", **keys)
    for code, pattern, sentence, hint in _REASONS:
        match = re.search(pattern, text, re.MULTILINE)
        if match:
            found = match.groupdict()
            values = [value for value in (found.get(key) for key in "abc") if value]
            first, second = [*values, "", ""][:2]
            message = sentence.format(a=first, b=second, detail=_detail(code, text)).strip().replace(" ()", "")
            return ModuleError(message, hint, code=code, **keys)
    return ModuleError("apt failed: %s" % (done.last_line or done.why), code="apt-failed", **keys)


def _detail(code: str, text: str) -> str:
    match = _UNMET.search(text) if code == "dependencies" else _DPKG_SAID.search(text)
    return ": " + " ".join(match.groups()) if match else ""
