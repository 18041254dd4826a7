"""The modules `copy` and `template`: files with content. Templates arrive rendered.

The controller replaces src by `_blob` (a file that travels by content hash) or `_tree` (a
folder of such files), and renders a template into `content`.
"""

from __future__ import annotations

import os
import stat

from gpuprov.agent.modules import attributes
from gpuprov.agent.modules.attributes import Attributes, lstat
from gpuprov.agent.modules.base import Change, ModuleError, State, absent
from gpuprov.agent.modules.content import BACKUP, VALIDATE, check_folder, difference, not_planned, put
from gpuprov.agent.modules.source import Source, inline, remote, sha1, travelled
from gpuprov.agent.modules.tree import make_folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.system import System

SPEC: dict[str, Any] = {
    "summary": "Files and folders from the controller, from the host itself, or from given text.",
    "args": {
        "src": {"type": "path", "doc": "File or folder on the controller; on the host with remote_src."},
        "content": {"type": "raw", "doc": "The file's text. A mapping or list is written as JSON."},
        "dest": {"type": "path", "required": True, "doc": "Where on the host. A folder, or one that ends with /, too."},
        "remote_src": {"type": "bool", "default": False, "doc": "src is on the host."},
        "force": {"type": "bool", "default": True, "aliases": ["thirsty"], "doc": "no: leave an existing file alone."},
        "backup": BACKUP,
        "validate": VALIDATE,
        "follow": {"type": "bool", "default": False, "doc": "Write to what a link at dest points to."},
        "local_follow": {"type": "bool", "default": True, "doc": "Follow links inside src on the controller."},
        "directory_mode": {"type": "mode", "doc": "Mode of folders that are made. Default 0755."},
        "checksum": {"type": "str", "doc": "SHA-1 that the file must have."},
        "decrypt": {"type": "bool", "default": True, "doc": "Decrypt a vault-encrypted src on the controller."},
        **attributes.ARGS,
    },
    "exclusive": [["src", "content"]],
    "one_of": [["src", "content", "_blob", "_tree"]],
    "unsupported": attributes.UNSUPPORTED,
    "internal": ["_blob", "_tree", "_text"],
    "returns": {
        "dest": "Where the file is.",
        "src": "Where it came from.",
        "checksum": "SHA-1 of the file.",
        "backup_file": "The copy of the old file.",
        **attributes.RETURNS,
    },
}


class Copy(State):
    """One file with its content, owner, group and mode."""

    def probe(self) -> Change:
        """Compare content and attributes; content is read only when the sizes agree."""
        if self._is_tree():
            from gpuprov.agent.modules.copy_tree import probe

            return probe(self.call)
        self.source = source_of(self.call)
        self.dest = destination(self.args)
        not_planned(self.call, self.dest)
        found = lstat(self.dest)
        result = {"dest": self.dest, **({"src": self.args["src"]} if self.args.get("src") else {})}
        if found is not None and not self.args["force"]:
            return Change(result=result)
        self.wanted = wanted(self.call, self.source)
        change = Change(result=result)
        if found is None:
            self._check_folder()
            change.differences = ["absent"]
        elif stat.S_ISDIR(found.st_mode):
            raise ModuleError("%s is a directory, not a file" % self.dest, code="is-a-directory")
        else:
            change.differences = [] if self.source.same_as(self.dest, found) else ["content"]
            change.differences += self.wanted.differences(found)
        if change.differences:
            self._describe(change, found)
        elif self.call.registered:
            change.result["checksum"] = sha1(self.dest)
        change.result.update(attributes.info(self.call, self.dest))
        return change

    def converge(self, change: Change) -> None:
        """Replace the file, or only its attributes."""
        if self._is_tree():
            from gpuprov.agent.modules.copy_tree import converge

            converge(self.call)
            return
        found = lstat(self.dest)
        if found is None or not self.source.same_as(self.dest, found):
            self.source.verify(self.args.get("checksum"))
            if not os.path.isdir(os.path.dirname(self.dest)):
                make_folders(os.path.dirname(self.dest), folder_attributes(self.call))
            change.result.update(put(self.call, self.dest, self.wanted, self.source.data, self.source.path))
        self.wanted.apply(self.dest)

    def _is_tree(self) -> bool:
        if self.args.get("_tree") is not None:
            return True
        return bool(self.args.get("remote_src")) and os.path.isdir(attributes.path(self.args["src"]))

    def _check_folder(self) -> None:
        if not self.args["dest"].endswith("/"):  # Ansible makes the folder only when it is spelled as one
            check_folder(self.call, self.dest)

    def _describe(self, change: Change, found: os.stat_result | None) -> None:
        if self.call.check:
            self.call.pending.add(self.dest)
        if not self.call.diff:
            return
        if "absent" in change.differences or "content" in change.differences:
            regular = found is not None and stat.S_ISREG(found.st_mode)
            before = self.system.read(self.dest) if regular else None
            change.diff.append(difference(self.dest, before, self.source.read(self.call)))
        if found is not None and self.wanted.differences(found):
            before_text, after_text = self.wanted.describe(found, False), self.wanted.describe(found, True)
            header = {"before_header": self.dest, "after_header": self.dest}
            change.diff.append({**header, "before": before_text, "after": after_text})


def source_of(call: Any) -> Source:
    """Return what the file's content is. Raises ModuleError, NeedsEarlierChange."""
    args = call.args
    if args.get("content") is not None:
        return inline(args["content"])
    if args.get("_blob"):
        return travelled(call, args["_blob"])
    path = attributes.path(args["src"])
    not_planned(call, path)
    if not os.path.exists(path):
        raise absent(call, "src %s does not exist on the host" % path, code="file-missing")
    return remote(path)


def destination(args: dict[str, Any]) -> str:
    """Return the path of the file that is written, below dest when that is a folder."""
    dest = attributes.path(args["dest"])
    if args.get("follow") and os.path.islink(dest):
        dest = os.path.realpath(dest)
    if not dest.endswith("/") and not os.path.isdir(dest):
        return dest
    name = os.path.basename(str(args.get("src") or ""))
    if not name:
        raise ModuleError("dest %s is a directory; content needs the path of a file" % dest, code="is-a-directory")
    return os.path.join(dest, name)


def wanted(call: Any, source: Source) -> Attributes:
    """Return owner, group and mode for the file; mode "preserve" is the source's."""
    if call.args.get("mode") != "preserve":
        return Attributes(call)
    if source.mode is None:
        raise ModuleError("mode preserve needs src; content has no mode")
    return Attributes(call, "%04o" % source.mode)


def folder_attributes(call: Any) -> Attributes:
    """Return owner, group and directory_mode for folders that are made on the way."""
    return Attributes(call, call.args.get("directory_mode") or "%04o" % attributes.DIRECTORY_MODE)


def needs(args: dict[str, Any], system: System) -> list[str]:  # noqa: ARG001
    """Return the sha256 of the files that this host does not have yet where they belong."""
    if args.get("_tree") is not None:
        from gpuprov.agent.modules.copy_tree import missing

        return missing(args)
    blob = args.get("_blob")
    if not blob:
        return []
    try:
        dest = destination(args)
        found = lstat(dest)
        if found is not None and (not args.get("force", True) or travelled(None, blob).same_as(dest, found)):
            return []
    except (ModuleError, OSError):
        pass  # the task itself will say what is wrong with dest; whether the file is there is not known
    return [blob["sha256"]]


MODULE = Copy
