"""Putting content at a path: backup, validation, one atomic replacement, and its --diff."""

from __future__ import annotations

import os
import stat
import time

from gpuprov.agent.modules.base import ModuleError, NeedsEarlierChange, absent, planned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.modules.attributes import Attributes
    from gpuprov.agent.modules.base import Call

#: More than this is not shown by --diff.
DIFF_LIMIT_BYTES = 64 * 1024

BACKUP = {"type": "bool", "default": False, "doc": "Keep a copy of the old file beside it, with the time in its name."}
VALIDATE = {
    "type": "str",
    "doc": "Command that must accept the new file before it is used; %s is its path. Not run by a shell.",
}


def check_folder(call: Call, path: str) -> None:
    """Raise unless the folder of *path* is there, or an earlier task would make it."""
    folder = os.path.dirname(path)
    if os.path.isdir(folder) or planned(call, folder):
        return
    if os.path.lexists(folder):
        raise ModuleError("%s is not a directory" % folder, code="not-a-directory")
    raise absent(call, "directory %s does not exist" % folder, "make it in an earlier task", code="directory-missing")


def not_planned(call: Call, path: str) -> None:
    """Raise NeedsEarlierChange when, in check mode, an earlier task would have changed *path*."""
    if planned(call, path):
        raise NeedsEarlierChange("an earlier task would change %s first" % path)


def difference(path: str, before: bytes | None, after: bytes | None) -> dict[str, Any]:
    """Return the --diff entry of a file whose content changes; None = no file."""
    return {
        "before_header": path if before is not None else "%s (absent)" % path,
        "after_header": path if after is not None else "%s (absent)" % path,
        "before": _shown(before),
        "after": _shown(after),
    }


def _shown(data: bytes | None) -> str:
    if data is None:
        return ""
    if len(data) > DIFF_LIMIT_BYTES:
        return "(%d bytes, not shown: more than %d)\n" % (len(data), DIFF_LIMIT_BYTES)
    if b"\0" in data[:8192]:
        return "(binary, %d bytes)\n" % len(data)
    return data.decode("utf-8", "backslashreplace")


def put(
    call: Call, path: str, attributes: Attributes, data: bytes | None = None, source: str | None = None
) -> dict[str, str]:
    """Validate *data* (or file *source*), back the old file up, and put it at *path* atomically.

    Returns {"backup_file": ...} when a backup was made. Raises ModuleError, OSError.
    """
    if call.args.get("validate"):
        _validate(call, call.args["validate"], path, data, source)
    made = {}
    old = os.lstat(path) if os.path.lexists(path) else None
    if old is not None and call.args.get("backup"):
        made["backup_file"] = back_up(call, path)
    is_new = old is None or stat.S_ISLNK(old.st_mode)
    mode = attributes.new_mode() if old is None or is_new else attributes.mode(old.st_mode)
    call.system.replace(path, data=data, source=source, mode=mode, uid=attributes.uid, gid=attributes.gid)
    return made


def back_up(call: Call, path: str) -> str:
    """Copy the file at *path* beside it, with its owner and mode; return the copy's path."""
    target = "%s.%d.%s" % (path, os.getpid(), time.strftime("%Y-%m-%d@%H:%M:%S~"))
    found = os.stat(path)
    call.system.replace(target, source=path, mode=found.st_mode & 0o7777, uid=found.st_uid, gid=found.st_gid)
    return target


def _validate(call: Call, command: str, path: str, data: bytes | None, source: str | None) -> None:
    from gpuprov.agent.modules.command import split

    if "%s" not in command:
        raise ModuleError("validate is %r, which has no %%s for the file's path" % command)
    folder = call.state_dir if os.access(call.state_dir, os.W_OK) else os.path.dirname(path)
    temporary = os.path.join(folder, ".validate-%s" % os.urandom(6).hex())
    call.system.replace(temporary, data=data, source=source, mode=0o600)
    try:
        words = [word.replace("%s", temporary) for word in split(command)]
        done = call.system.run(words, env=call.env, timeout_s=call.timeout_s)
    except OSError as error:
        raise ModuleError("validate command %r cannot be run: %s" % (command, error.strerror)) from None
    finally:
        os.unlink(temporary)
    if done.rc != 0:
        said = done.last_line.replace(temporary, path)
        message = "the new content of %s was not accepted by %r: %s" % (path, command, said or done.why)
        raise ModuleError(message, "the file was left as it was", code="validate-failed", rc=done.rc, stderr=done.err)
