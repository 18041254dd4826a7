"""Module streams of RHEL 8 and 9: which one is enabled, and changing that."""

from __future__ import annotations

import os
import re

from gpuprov.agent.modules.base import ModuleError
from gpuprov.agent.modules.dnf_command import dnf, dnf_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuprov.agent.modules.base import Call

FOLDER = "/etc/dnf/modules.d"


class Streams:
    """One module, and the stream "module:stream" that is wanted of it."""

    def __init__(self, call: Call, wanted: str) -> None:
        self._call = call
        self._wanted = wanted
        self._module, colon, stream = wanted.partition(":")
        if not colon or not re.match(r"^[\w.+-]+$", self._module) or not re.match(r"^[\w.+-]+$", stream):
            raise ModuleError("module_stream is %r" % wanted, "example: nvidia-driver:580-open")
        self._path = os.path.join(FOLDER, self._module + ".module")

    def differs(self) -> list[str]:
        """Return what differs from the stream that is enabled."""
        fields = dict(re.findall(r"^(\w+)[ \t]*=[ \t]*(.*)$", self._call.system.read_text(self._path), re.MULTILINE))
        now = "%s:%s" % (self._module, fields.get("stream")) if fields.get("state") == "enabled" else "not set"
        return [] if now == self._wanted else ["module stream is %s, not %s" % (now, self._wanted)]

    def enable(self) -> Callable[[], None]:
        """Enable the stream instead of another; return what puts the settings back. Raises ModuleError."""
        before = self._call.system.read(self._path) if os.path.exists(self._path) else None

        def undo() -> None:
            if before is not None:
                self._call.system.replace(self._path, data=before, mode=0o644)
            elif os.path.exists(self._path):
                os.unlink(self._path)

        try:
            if before is not None:
                dnf(self._call, "module", "reset", self._module)
            dnf(self._call, "module", "enable", self._wanted)
        except ModuleError as error:
            undo()
            said = error.result.get("stderr", "")
            if "missing groups or modules" not in said and "Unable to resolve" not in said:
                raise
            message = "the repositories have no module stream %s; streams: %s" % (self._wanted, self._known())
            hint = "choose one of them; EL 10 has no module streams"
            raise ModuleError("refused, nothing was changed: " + message, hint, code="module-stream-unknown") from None
        return undo

    def _known(self) -> str:
        said = self._call.system.run([dnf_program(self._call), "-q", "module", "list", self._module], self._call.env)
        found = re.findall(r"^%s\s+(\S+)" % re.escape(self._module), said.out, re.MULTILINE)
        return ", ".join(found) or "none of %s" % self._module
