"""What a change of packages was about, on disk while it goes on: a later run repairs from it.

A power cut or kill -9 leaves the file behind. It is written before the first package changes and
removed when packages and holds are as wanted.
"""

from __future__ import annotations

import json
import os

from gpuprov.agent.modules.base import ModuleError, ProbeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpuprov.agent.system import System

PATH = "/var/lib/gpuprov/packages-in-change.json"


class Interrupted:
    """What a change that did not end had in mind. holds are the packages to be on hold afterwards."""

    __slots__ = ("before", "holds")

    def __init__(self, holds: Sequence[str], before: Mapping[str, str]) -> None:
        self.holds = list(holds)
        self.before = dict(before)


def interrupted(system: System) -> Interrupted | None:
    """Return what is left of a change that did not end, or None. Raises ProbeError."""
    try:
        data = json.loads(system.read(PATH))
        return Interrupted([str(name) for name in data["holds"]], {str(k): str(v) for k, v in data["before"].items()})
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProbeError("%s cannot be read: %s" % (PATH, error.strerror), "become: true may be missing") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        message = "%s is damaged: which packages were on hold before is not known" % PATH
        raise ProbeError(message, "set holds as they should be, and remove the file", code="record-damaged") from None


def begin(system: System, holds: Sequence[str], before: Mapping[str, str]) -> None:
    """Put on disk what is about to happen. Raises ModuleError when that cannot be."""
    data = json.dumps({"holds": sorted(holds), "before": dict(before)}, indent=1, sort_keys=True) + "\n"
    try:
        os.makedirs(os.path.dirname(PATH), mode=0o755, exist_ok=True)
        system.replace(PATH, data=data.encode(), mode=0o600)
    except OSError as error:
        message = "nothing was changed: %s cannot be written: %s" % (PATH, error.strerror)
        raise ModuleError(message, "free some space there, or become root", code="record-unwritable") from None


def end() -> None:
    """Forget it: all is as wanted."""
    if os.path.exists(PATH):
        os.unlink(PATH)
