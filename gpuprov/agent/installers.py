"""The programs that install Python packages: uv, or an environment's own pip. Their words, made plain."""

from __future__ import annotations

import os
import re

from gpuprov.agent.modules.base import ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from gpuprov.agent.process import Finished
    from gpuprov.agent.system import System

#: What such a program says -> what it means, what to do, and a stable code.
TROUBLES: tuple[tuple[str, str, str, str], ...] = (
    ("No space left on device|os error 28", "the disk is full", "free some space and run again", "disk-full"),
    ("[Hh]ash mismatch|DO NOT MATCH THE HASHES", "a package does not have the expected content (hash mismatch)",
     "somebody replaced or damaged it; clear the wheel cache, or check the index", "hash-mismatch"),
    ("externally[ -]managed", "this Python belongs to the operating system, which forbids pip in it",
     "give virtualenv: /some/folder", "externally-managed"),
    ("ensurepip is not|No module named (?:ensurepip|venv)", "this Python cannot make virtual environments",
     "install the distribution's package python3-venv, or let source: controller bring uv", "no-venv"),
    ("No module named pip", "this Python has no pip",
     "install the distribution's package python3-pip, or give virtualenv", "no-pip"),
    ("No matching distribution|No solution found|was not found in the|has no wheels|no versions? of",
     "no fitting package was found", "check the name, the version and the index; Python and machine must fit",
     "no-matching-package"),
    ("[Cc]onnection refused|dns error|Failed to fetch|NewConnectionError|timed out|Could not connect",
     "the package index cannot be reached",
     "check proxy and index_url, or let the controller fetch: source: controller", "index-unreachable"),
    ("Read-only file system|os error 30", "the file system is read-only", "", "read-only"),
    ("Permission denied|os error 13", "permission denied", "the task may need become: true", "permission"),
)  # fmt: skip


class Installer:
    """One way to install: uv for the interpreter *python*, or a pip when *python* is empty."""

    def __init__(self, command: Sequence[str], python: str, env: dict[str, str]) -> None:
        self.uv = bool(python)
        self._command = list(command)
        self._python = ["--python", python] if python else []
        self._env = env

    def install(self, words: Sequence[str], run: Run) -> Finished:
        """Install *words* (options and requirements). Raises ModuleError."""
        return run([*self._command, "install", *self._python, *words], self._env)

    def uninstall(self, words: Sequence[str], run: Run) -> Finished:
        """Remove packages by name. Raises ModuleError."""
        yes = [] if self.uv else ["--yes"]
        return run([*self._command, "uninstall", *self._python, *yes, *words], self._env)

    def would_install(self, words: Sequence[str], run: Run) -> list[str]:
        """Return "name==version" of all that installing *words* would bring; changes nothing. Raises ModuleError."""
        done = run([*self._command, "install", *self._python, "--dry-run", *words], self._env)
        if self.uv:
            return re.findall(r"^ \+ (\S+==\S+)", done.err + "\n" + done.out, re.MULTILINE)
        found = re.search(r"^Would install (.+)$", done.out, re.MULTILINE)
        return ["==".join(word.rsplit("-", 1)) for word in found.group(1).split()] if found else []


class Run:
    """Runs such programs: live output, the task's environment and limits, failures as sentences."""

    def __init__(
        self,
        system: System,
        env: dict[str, str],
        output: Callable[[str, str], None],
        timeout_s: float | None = None,
        cwd: str | None = None,
        umask: int | None = None,
    ) -> None:
        self._system = system
        self._env = env
        self._output = output
        self._timeout_s = timeout_s
        self._cwd = cwd
        self._umask = umask
        self.commands: list[list[str]] = []
        self.outputs: list[str] = []

    def __call__(self, argv: Sequence[str], env: dict[str, str]) -> Finished:
        """Run *argv*; return how it ended. Raises ModuleError when it did not end well."""
        merged = {"NO_COLOR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", **env, **self._env}
        try:
            done = self._system.run(
                argv, env=merged, cwd=self._cwd, timeout_s=self._timeout_s, on_line=self._output, umask=self._umask
            )
        except OSError as error:
            message = "cannot start %s: %s" % (argv[0], error.strerror)
            raise ModuleError(message, code="cannot-start", cmd=list(argv)) from None
        self.commands.append(list(argv))
        self.outputs.append(done.out + done.err)
        if done.rc != 0 or done.timed_out:
            raise failure(list(argv), done)
        return done


def failure(argv: list[str], done: Finished) -> ModuleError:
    """Return what went wrong as one sentence, with a remedy when the cause is known."""
    text = done.err + "\n" + done.out
    tool = os.path.basename(argv[0])
    keys: dict[str, Any] = {"cmd": argv, "rc": done.rc, "stdout": done.out, "stderr": done.err}
    for pattern, meaning, hint, code in () if done.timed_out or done.rc < 0 else TROUBLES:
        if re.search(pattern, text):
            return ModuleError("%s: %s (%s)" % (tool, meaning, _reason(text, pattern)), hint, code=code, **keys)
    return ModuleError(
        "%s failed: %s (%s)" % (tool, done.last_line or "it said nothing", done.why), code="installer-failed", **keys
    )


def _reason(text: str, pattern: str) -> str:
    """Return the paragraph that gives it away, from the line that says it, without the drawing around it."""
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if re.search(pattern, line))
    words: list[str] = []
    for line in lines[first : first + 6]:
        if not line.strip():
            break
        words += re.sub(r"^(?:ERROR: |error: |\W+)", "", line.strip()).split()
    return " ".join(words)[:400]
