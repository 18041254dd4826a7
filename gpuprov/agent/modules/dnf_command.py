"""Running dnf (or yum): without questions, with failures as one sentence."""

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

#: (code, what dnf prints, our sentence, hint). The first that matches is the reason: a source that cannot be
#: reached is why its packages are unknown.
_REASONS = (
    (
        "network",
        r"Could(?:n't| not) resolve host(?:name)?:? ?(?P<a>\S*)|Failed to download metadata for repo '(?P<b>[^']+)'"
        r"|Curl error \(\d+\): (?P<c>[^\[\n]+)|Status code: (?P<d>\d+)",
        "the package source {a} cannot be reached",
        "check the host's network, DNS, proxy and subscription",
    ),
    (
        "package-unknown",
        r"Unable to find a match: (?P<a>.+)|No match for argument: (?P<b>\S+)|No package (?P<c>\S+) available",
        "package {a} is in none of the host's package sources",
        "check the name, and enablerepo",
    ),
    (
        "root-needed",
        r"superuser privileges|need to be root|Permission denied",
        "packages can be changed by root only",
        "become: true is missing",
    ),
    (
        "package-lock",
        r"Waiting for process with pid (?P<a>\d+)|lock.* held by (?:process )?(?P<b>\d+)",
        "the package lock is held by process {a}",
        "wait for it, or raise lock_timeout",
    ),
    (
        "disk-full",
        r"No space left on device|needs? (?P<a>\S+) more space|cpio: write failed",
        "the disk is full",
        "dnf clean all frees some",
    ),
    (
        "not-signed",
        r"GPG check FAILED|is not signed|Public key for (?P<a>\S+) is not installed",
        "a package is not signed by a known key ({a})",
        "import the source's key with rpm --import, or gpgkey= in its .repo file",
    ),
    (
        "no-sources",
        r"There are no enabled repositories",
        "the host has no package sources",
        "add one to /etc/yum.repos.d",
    ),
    (
        "dependencies",
        r"(?P<a>nothing provides [^\n]+|package \S+ requires [^\n]+|[^\n]* conflicts with [^\n]+)",
        "the dependencies cannot be satisfied: {a}",
        "allowerasing, nobest or skip_broken may permit it",
    ),
    (
        "protected",
        r"would (?:result in|remove).*protected package[^\n:]*:? ?(?P<a>.*)",
        "protected: {a}",
        "refused by dnf",
    ),
)
#: Where dnf 4 and yum write the number of the process that works. Nothing is left there by one that ended.
_LOCKS = (
    "/var/cache/dnf/metadata_lock.pid",
    "/var/cache/dnf/download_lock.pid",
    "/var/lib/dnf/rpmdb_lock.pid",
    "/var/run/yum.pid",
)
_ROW = re.compile(r"^ (\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s+[\d.]+ [kMGKi]*B?\s*$", re.MULTILINE)


def options(args: dict[str, Any]) -> list[str]:
    """Return dnf's options for a task's arguments."""
    words = ["--enablerepo=%s" % name for name in args["enablerepo"]]
    words += ["--disablerepo=%s" % name for name in args["disablerepo"]]
    words += ["--exclude=%s" % name for name in args["exclude"]]
    for name, word in (
        ("disable_gpg_check", "--nogpgcheck"),
        ("allowerasing", "--allowerasing"),
        ("nobest", "--nobest"),
        ("best", "--best"),
        ("skip_broken", "--skip-broken"),
        ("security", "--security"),
        ("bugfix", "--bugfix"),
    ):
        words += [word] if args.get(name) else []
    words += ["--disableexcludes=%s" % args["disable_excludes"]] if args.get("disable_excludes") else []
    words += ["--releasever=%s" % args["releasever"]] if args.get("releasever") else []
    words += ["--config=%s" % args["conf_file"]] if args.get("conf_file") else []
    words += [] if args["install_weak_deps"] else ["--setopt=install_weak_deps=False"]
    return words + ([] if args["sslverify"] and args["validate_certs"] else ["--setopt=sslverify=False"])


def dnf(call: Call, *words: str, stdin: bytes = b"") -> Finished:
    """Run dnf with *words* to its end. Raises ModuleError with the reason when it fails."""
    done = run_dnf(call, ["-y", *words], stdin)
    if done.rc != 0:
        raise failure(done)
    return done


def would_change(call: Call, words: list[str]) -> list[str]:
    """Return what dnf would install, upgrade or remove. Changes nothing. Raises ModuleError."""
    done = run_dnf(call, ["--assumeno", *words])
    rows = ["%s %s" % (name, version) for name, _, version, _ in _ROW.findall(done.out)]
    if done.rc == 0 or rows:
        return rows
    if "Operation aborted" in done.out + done.err:  # by --assumeno: there was something to say no to
        return ["package groups"]
    raise failure(done)


def dnf_program(call: Call) -> str:
    """Return the path of dnf or yum. Raises ModuleError."""
    program = call.system.which("dnf") or call.system.which("yum")
    if program is None:
        hint = "the dnf module is for RHEL, Rocky, AlmaLinux, Fedora"
        raise ModuleError("neither dnf nor yum is on this host", hint, code="program-missing")
    return program


def run_dnf(call: Call, words: list[str], stdin: bytes = b"") -> Finished:
    """Run dnf with *words*, after the locks are free, and return how it ended. Raises ModuleError."""
    program = dnf_program(call)
    _wait_for_locks(call)
    return call.system.run([program, *words], call.env, stdin=stdin, timeout_s=call.timeout_s, on_line=call.output)


def _wait_for_locks(call: Call) -> None:
    """Wait until the process that a lock file names has ended. Raises ModuleError that names it."""
    seconds = call.args["lock_timeout"]
    deadline = time.monotonic() + seconds if seconds > 0 else None
    while True:
        holders = [pid for pid in (call.system.read_text(path).strip() for path in _LOCKS) if _alive(pid)]
        if not holders:
            return
        name = call.system.read_text("/proc/%s/comm" % holders[0]).strip()
        if deadline is not None and time.monotonic() >= deadline:
            message = "the package lock is held by process %s (%s)" % (holders[0], name)
            raise ModuleError(message, "wait for it, or raise lock_timeout", code="package-lock")
        call.output("stdout", "waiting for the package lock held by process %s (%s)" % (holders[0], name))
        time.sleep(1)


def _alive(pid: str) -> bool:
    return pid.isdigit() and os.path.isdir("/proc/" + pid)


def failure(done: Finished) -> ModuleError:
    """Return the reason why dnf failed, as one sentence."""
    text = done.err + "\n" + done.out
    keys: dict[str, Any] = {"rc": done.rc, "stdout": done.out, "stderr": done.err}
    if done.timed_out:
        return ModuleError("the package manager did not end: %s" % done.why, code="timeout", **keys)
    for code, pattern, sentence, hint in _REASONS:
        match = re.search(pattern, text)
        if match:
            values = [value for value in match.groupdict().values() if value]
            message = sentence.format(a=values[0].strip() if values else "").replace(" ()", "").replace("  ", " ")
            return ModuleError(message, hint, code=code, **keys)
    return ModuleError("dnf failed: %s" % (done.last_line or done.why), code="dnf-failed", **keys)
