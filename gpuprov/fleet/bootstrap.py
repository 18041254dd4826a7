"""A Python for hosts that have none that an agent could run on: through plain ssh, by the host's package manager.

The host is asked with a few lines of shell. Where a Python >= 3.8 is there nothing is done; else the packages that
could have one are tried in turn, and the host is asked again.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuprov import bundle
from gpuprov.errors import AgentError, RefusedError
from gpuprov.fleet.session import sudo_error

if TYPE_CHECKING:
    from gpuprov.fleet.session import Become
    from gpuprov.transport.base import Channel, Connection

NEEDED = (3, 8)
#: How long the questions may take, and an installation with its downloads, in seconds.
ASK_S, INSTALL_S = 60.0, 900.0
OUTPUT_LIMIT_BYTES = 1024 * 1024
#: Package managers in the order in which they are looked for.
MANAGERS = ("apt-get", "dnf", "microdnf", "yum", "zypper")
#: What is printed before the last lines of a failure that say nothing about its cause.
_NOISE = re.compile(r"^(debconf|perl|locale|WARNING|W:|Complete!|Nothing to do|Dependencies resolved)")


@dataclass(frozen=True, slots=True)
class Python:
    """One interpreter of a host. version is (0, 0) for one that does not run."""

    path: str
    version: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.path} ({self.version[0]}.{self.version[1]})"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host says of itself; manager is "" for one without a package manager that is known here."""

    pythons: tuple[Python, ...] = ()
    manager: str = ""
    system: str = ""
    release: str = ""

    def usable(self) -> Python | None:
        """Return the Python that an agent would be started with, or None."""
        return next((python for python in self.pythons if python.version >= NEEDED), None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one host: python is the one that is there now; command what was, or would be, run for it."""

    python: Python | None
    command: str = ""
    changed: bool = False


def bootstrap(connection: Connection, become: Become, named: str | None = None, *, check: bool = False) -> Outcome:
    """Make sure that an agent finds a Python. Raises AgentError, RefusedError, TransportError; blocks.

    named is ansible_python_interpreter. check only says what would be done.
    """
    before = ask(connection, named)
    if (found := _settled(before, named)) is not None:
        return Outcome(found)
    scripts = install_scripts(before)
    if not scripts:
        raise RefusedError(
            f"no package manager that gpuprov knows is on the host ({before.system or 'unknown system'})",
            hint=f"install a Python 3.8 or newer by hand; known are {', '.join(MANAGERS)}",
            code="no-package-manager",
        )
    if check:
        return Outcome(None, scripts[0], changed=True)
    failures = []
    for script in scripts:
        status, output = _run(connection, become, script, INSTALL_S)
        if status != 0:
            failures.append(_reason(output, status))
            continue
        if (found := _settled(ask(connection, named), named)) is not None:
            return Outcome(found, script, changed=True)
        failures.append(f"{script.split(' && ')[-1]!r} succeeded, and no Python 3.8 or newer is there")
    raise AgentError(
        f"no Python 3.8 or newer could be installed: {failures[0]}",
        hint=_hint(failures[0], before),
        code="python-not-installed",
    )


def ask(connection: Connection, named: str | None) -> Answer:
    """Return what Pythons and which package manager a host has. Needs no rights."""
    from gpuprov.fleet.session import Become

    tries = dict.fromkeys([*([bundle.interpreter(named)] if named else []), *bundle.PYTHONS])
    script = (
        f"for p in {' '.join(tries)}; do w=$(command -v $p 2>/dev/null) || continue; "
        'v=$($p -I -S -B -c "import sys; print(sys.version_info[0], sys.version_info[1])" 2>/dev/null) || v="0 0"; '
        'echo "python $w $v"; done; '
        f"for m in {' '.join(MANAGERS)}; do if command -v $m >/dev/null 2>&1; then echo manager $m; break; fi; done; "
        'if [ -r /etc/os-release ]; then . /etc/os-release; echo "system ${ID:-unknown} ${VERSION_ID:-}"; fi'
    )
    status, output = _run(connection, Become(), script, ASK_S)
    if status != 0:
        raise AgentError(f"the host's shell fails at a few questions: {_reason(output, status)}", code="no-shell")
    return _answer(output)


def _answer(output: str) -> Answer:
    pythons, manager, system, release = [], "", "", ""
    for words in (line.split() for line in output.splitlines()):
        if words[:1] == ["python"] and len(words) == 4 and words[2].isdigit() and words[3].isdigit():
            pythons.append(Python(words[1], (int(words[2]), int(words[3]))))
        elif words[:1] == ["manager"] and len(words) == 2 and words[1] in MANAGERS:
            manager = words[1]
        elif words[:1] == ["system"] and len(words) > 1:
            system, release = words[1], words[2] if len(words) > 2 else ""
    return Answer(tuple(pythons), manager, system, release)


def _settled(answer: Answer, named: str | None) -> Python | None:
    """Return the Python that is there; None when one has to be installed. Raises AgentError.

    A named interpreter that is not usable while another one is, is the inventory's mistake, not the host's.
    """
    found = answer.usable()
    if found is None or not named:
        return found
    word = bundle.interpreter(named)
    mine = [python for python in answer.pythons if python.path == word or python.path.endswith("/" + word)]
    if any(python.version >= NEEDED for python in mine):
        return mine[0]
    is_what = f"is {mine[0].version[0]}.{mine[0].version[1]}" if mine else "is not there"
    raise AgentError(
        f"ansible_python_interpreter names {word}, which {is_what}; the host has {found}",
        hint=f"set it to {found.path}, or leave it out",
        code="python-missing",
    )


def install_scripts(answer: Answer) -> tuple[str, ...]:
    """Return the commands, best first, that may give a host a Python >= 3.8. Pure."""
    major = answer.release.partition(".")[0]
    if answer.manager == "apt-get":
        get = "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120"
        return (f"{get} update && {get} install --no-install-recommends python3",)
    if answer.manager in ("dnf", "microdnf", "yum"):
        # Enterprise Linux 8 has Python 3.6 as python3; beside it 3.12 since 8.10, 3.11 since 8.8, 3.9 since 8.4
        beside = ("python3.12", "python3.11", "python39")
        return tuple(f"{answer.manager} -y install {name}" for name in (beside if major == "8" else ("python3",)))
    if answer.manager == "zypper":
        # SUSE 15 has Python 3.6 as python3
        own, beside = ("python3", "python313"), ("python312", "python311", "python310")
        install = "zypper --non-interactive install --no-recommends"
        return tuple(f"{install} {name}" for name in (beside if major == "15" else own))
    return ()


def _run(connection: Connection, become: Become, script: str, limit_s: float) -> tuple[int, str]:
    """Run a script of sh, as root where *become* says so; return its status and output, both streams.

    Raises AgentError for sudo that does not let us, for silence and for a flood; TransportError.
    """
    marker = f"gpuprov-{secrets.token_hex(8)}"
    prompt = f"gpuprov-sudo-{secrets.token_hex(8)}:" if become.root and become.password is not None else ""
    sudo = "" if not become.root else f"sudo -S -p {prompt} -H -- " if prompt else "sudo -n -H -- "
    channel = connection.run(f"exec {sudo}/bin/sh -c '{_at_sh(marker, script)}'")
    try:
        if not prompt:
            channel.stdin_eof()
        status, out, err = _collect(channel, prompt, become.password or "", time.monotonic() + limit_s, limit_s)
    finally:
        channel.close()
    text = out.decode("utf-8", "replace")
    started, _, rest = text.partition(marker + "\n")
    said = err.decode("utf-8", "replace").replace(prompt or "\0", "")
    if marker not in text:
        if become.root:
            raise sudo_error(_last_line(said or started), status)
        raise AgentError(
            f"the command ended with status {status} before it began: {_last_line(said or started)}",
            hint="does the account have a forced command, or a login shell that refuses commands?",
            code="no-shell",
        )
    return status, rest + said


def _at_sh(marker: str, script: str) -> str:
    """Return *script* for sh after a line with the marker; nothing in it may end the quotes around it."""
    assert "'" not in script
    return f"echo {marker}; {script}"


def _collect(channel: Channel, prompt: str, password: str, deadline: float, limit_s: float) -> tuple[int, bytes, bytes]:
    """Read a command to its end, answering sudo once."""
    out, err, answered = bytearray(), bytearray(), False
    while True:
        ready = channel.wait(0.05 if prompt and not answered else 1.0)
        err += channel.stderr()
        if prompt and err.count(prompt.encode()) > answered:
            if answered:
                raise AgentError(
                    "sudo refused the password", hint="check -K or ansible_become_password", code="sudo-password"
                )
            answered = True
            channel.send(password.encode() + b"\n", 30.0)
            channel.stdin_eof()
        if ready:
            data = channel.recv()
            if data == b"":
                return _status(channel), bytes(out), bytes(err + channel.stderr())
            out += data or b""
        if len(out) > OUTPUT_LIMIT_BYTES:
            raise AgentError(f"the host printed more than {OUTPUT_LIMIT_BYTES >> 20} MiB", code="noise")
        if time.monotonic() > deadline:
            raise AgentError(
                f"the command did not end within {limit_s:g} s", hint="look at what it waits for there", code="silent"
            )


def _status(channel: Channel) -> int:
    """Return the exit status, which arrives a moment after the end of the output."""
    for _ in range(40):
        if (status := channel.exit_status()) is not None:
            return status
        time.sleep(0.05)
    return 255


def _reason(output: str, status: int) -> str:
    return _last_line(output) or f"exit status {status}"


def _last_line(text: str) -> str:
    """Return the line that says why: the last error of a package manager, else the last line."""
    lines = ["".join(c if c.isprintable() else " " for c in line).strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not _NOISE.match(line)]
    errors = [line for line in lines if re.match(r"(E:|Error|error:|Problem|No provider|No match)", line)]
    return (errors or lines or [""])[-1][:300]


def _hint(failure: str, answer: Answer) -> str:
    low = failure.lower()
    if "resolv" in low or "connect" in low or "download" in low or "mirror" in low:
        return f"the host has to reach its package sources ({answer.manager}); a proxy goes into its configuration"
    if "lock" in low:
        return "another program works with its packages: try again when that has ended"
    return "install a Python 3.8 or newer by hand, and set ansible_python_interpreter where it is in an unusual place"
