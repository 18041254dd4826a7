"""The module `shell`: a command line for /bin/sh."""

from __future__ import annotations

from gpuprov.agent.modules.base import ModuleError
from gpuprov.agent.modules.command import ARGS, RETURNS, Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "Run a command line in a shell: pipes, redirections, variables.",
    "free_form": "_raw_params",
    "args": {
        **ARGS,
        "executable": {"type": "path", "default": "/bin/sh", "doc": "The shell; it gets -c and the command."},
    },
    "exclusive": [["_raw_params", "cmd"]],
    "one_of": [["_raw_params", "cmd"]],
    "unsupported": {"argv": "a shell gets one text; use the command module", "warn": "it has no effect"},
    "returns": RETURNS,
}


class Shell(Command):
    """One command line with its output and exit code."""

    def words(self) -> tuple[list[str], Any]:
        """Return the shell's words, and the command line as it is shown."""
        text = self.args.get("_raw_params") or self.args.get("cmd") or ""
        if not text.strip():
            raise ModuleError("no command is given", rc=256)
        return [self.args["executable"], "-c", text], text


MODULE = Shell
