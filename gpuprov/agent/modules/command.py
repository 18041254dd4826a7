"""The module `command`: a program with arguments, without a shell. `shell` shares the class."""

from __future__ import annotations

import errno
import os
import re
import time

from gpuprov.agent.modules.base import Action, ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from gpuprov.agent.process import Finished

#: Arguments that command and shell share.
ARGS: dict[str, Any] = {
    "_raw_params": {"type": "str", "doc": "The command, as free text."},
    "cmd": {"type": "str", "doc": "The command, as an argument."},
    "chdir": {"type": "path", "doc": "Run in this folder."},
    "creates": {"type": "path", "doc": "Do nothing when this path or pattern exists."},
    "removes": {"type": "path", "doc": "Do nothing unless this path or pattern exists."},
    "stdin": {"type": "raw", "doc": "Text for the command's standard input."},
    "stdin_add_newline": {"type": "bool", "default": True, "doc": "End stdin with a newline."},
    "strip_empty_ends": {"type": "bool", "default": True, "doc": "Drop line ends at the end of stdout and stderr."},
}
RETURNS: dict[str, str] = {
    "cmd": "What was run.",
    "rc": "Exit code; negative for a signal.",
    "stdout": "Standard output, the middle left out when it is long.",
    "stderr": "Standard error, the middle left out when it is long.",
    "stdout_lines": "stdout by lines (when registered).",
    "stderr_lines": "stderr by lines (when registered).",
    "start": "Local time of the start.",
    "end": "Local time of the end.",
    "delta": "Duration, h:mm:ss.microseconds.",
}
SPEC: dict[str, Any] = {
    "summary": "Run a program. Not through a shell: no pipes, no redirections.",
    "free_form": "_raw_params",
    "args": {
        **ARGS,
        "argv": {"type": "list", "doc": "The command as a list of words."},
        "expand_argument_vars": {"type": "bool", "default": True, "doc": "Replace $VARIABLES and ~ in words."},
    },
    "exclusive": [["_raw_params", "cmd", "argv"]],
    "one_of": [["_raw_params", "cmd", "argv"]],
    "unsupported": {"executable": "command runs without a shell; use the shell module", "warn": "it has no effect"},
    "returns": RETURNS,
}

_QUOTING = re.compile(r"[\"'\\]")
_WORD = re.compile(r"""((?:[^\s"'\\]+|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+)\s*""", re.DOTALL)
_PIECE = re.compile(r"""\\(.)|'([^']*)'|"((?:[^"\\]|\\.)*)"|([^\s"'\\]+)""", re.DOTALL)
_IN_QUOTES = re.compile(r"\\([\"\\])")
_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})", re.ASCII)


class Command(Action):
    """One command with its output and exit code."""

    def skip(self) -> str:
        """Return why there is nothing to do, by creates and removes."""
        creates, removes = self.args.get("creates"), self.args.get("removes")
        if creates and self._exists(creates):
            return "%s exists" % creates
        if removes and not self._exists(removes):
            return "%s does not exist" % removes
        return ""

    def skipped(self) -> dict[str, Any]:
        """Return the keys of a command that was not needed, as Ansible has them."""
        return {"rc": 0, "stdout": "", "stderr": "", "cmd": self.words()[1]}

    def run(self) -> dict[str, Any]:
        """Run it. Raises ModuleError unless it ends with exit code 0."""
        words, shown = self.words()
        folder = self._folder()
        started, clock = time.time(), time.monotonic()
        try:
            done = self.system.run(
                words, self.call.env, folder, self._stdin(), self.call.timeout_s, on_line=self.call.output
            )
        except OSError as error:
            raise _not_started(error, words, shown) from None
        result = self._result(done, shown, started, time.monotonic() - clock)
        if done.rc != 0 or done.timed_out:
            message = done.why + (": " + done.last_line if done.last_line else "")
            raise ModuleError(message, code="command-failed", **{**result, "msg": "non-zero return code"})
        return result

    def words(self) -> tuple[list[str], Any]:
        """Return the words to execute, and the command as it is shown."""
        env = {**os.environ, **self.call.env}
        if self.args.get("argv") is not None:
            words = [str(word) for word in self.args["argv"]]
        else:
            words = split(self.args.get("_raw_params") or self.args.get("cmd") or "")
        if self.args["expand_argument_vars"]:
            words = [expand(word, env) for word in words]
        if not words or not words[0]:
            raise ModuleError("no command is given", rc=256)
        return words, words

    def _exists(self, pattern: str) -> bool:
        folder = self._folder()
        pattern = os.path.join(folder or "/", expand(pattern, {**os.environ, **self.call.env}))
        if not re.search(r"[*?\[]", pattern):
            return os.path.lexists(pattern)
        import glob

        return bool(glob.glob(pattern))

    def _folder(self) -> str | None:
        folder = self.args.get("chdir")
        return expand(folder, {**os.environ, **self.call.env}) if folder else None

    def _stdin(self) -> bytes:
        text = self.args.get("stdin")
        if text is None:
            return b""
        data = str(text).encode("utf-8", "surrogateescape")
        return data + b"\n" if self.args["stdin_add_newline"] and not data.endswith(b"\n") else data

    def _result(self, done: Finished, shown: Any, started: float, duration_s: float) -> dict[str, Any]:
        out, err = done.out, done.err
        if self.args["strip_empty_ends"]:
            out, err = out.rstrip("\r\n"), err.rstrip("\r\n")
        result: dict[str, Any] = {
            "changed": True,
            "cmd": shown,
            "rc": done.rc,
            "stdout": out,
            "stderr": err,
            "start": _moment(started),
            "end": _moment(started + duration_s),
            "delta": _duration(duration_s),
        }
        if self.call.registered:
            result["stdout_lines"], result["stderr_lines"] = out.splitlines(), err.splitlines()
        return result


def split(text: str) -> list[str]:
    """Split a command into words as a shell quotes them. Raises ModuleError for an open quote."""
    if not _QUOTING.search(text):
        return text.split()
    words, at = [], len(text) - len(text.lstrip())
    while at < len(text):
        match = _WORD.match(text, at)
        if not match:
            raise ModuleError("a quote is not closed in %r" % text[at : at + 80], code="open-quote")
        words.append("".join(_unquote(piece) for piece in _PIECE.finditer(match.group(1))))
        at = match.end()
    return words


def _unquote(piece: re.Match[str]) -> str:
    escaped, single, double, plain = piece.groups()
    if double is not None:
        return _IN_QUOTES.sub(r"\1", double)
    return next(text for text in (escaped, single, plain) if text is not None)


def expand(word: str, env: Mapping[str, str]) -> str:
    """Replace a leading ~ and $VARIABLES that *env* has."""
    if word[:1] == "~":
        word = os.path.expanduser(word)
    if "$" not in word:
        return word
    return _VARIABLE.sub(lambda match: env.get(match.group(1).strip("{}"), match.group(0)), word)


def _not_started(error: OSError, words: list[str], shown: Any) -> ModuleError:
    if error.errno == errno.ENOENT and error.filename == words[0]:
        return ModuleError("program %s not found" % words[0], code="program-missing", rc=2, cmd=shown)
    if error.errno == errno.EACCES and error.filename == words[0]:
        return ModuleError("%s may not be executed" % words[0], code="program-denied", rc=13, cmd=shown)
    if error.errno == errno.ENOEXEC:
        hint = "its first line must name an interpreter: #!/bin/sh"
        return ModuleError("%s is no program that can be executed" % words[0], hint, rc=8, cmd=shown)
    message = "%s: %s" % (error.filename, error.strerror)
    return ModuleError(message, code="not-started", rc=error.errno or 1, cmd=shown)


def _moment(at: float) -> str:
    return "%s.%06d" % (time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)), at % 1 * 1_000_000)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return "%d:%02d:%09.6f" % (minutes // 60, minutes % 60, rest)


MODULE = Command
