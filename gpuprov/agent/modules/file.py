"""The module `file`: files, folders and links as such, without content."""

from __future__ import annotations

import os
import stat

from gpuprov.agent.modules import attributes
from gpuprov.agent.modules.attributes import Attributes, lstat
from gpuprov.agent.modules.base import Change, ModuleError, State, absent, planned
from gpuprov.agent.modules.content import check_folder, not_planned
from gpuprov.agent.modules.tree import folders_above, make_folders, remove, times_of, unlike, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "Files, directories, links: that they exist or not, with owner, group and mode.",
    "args": {
        "path": {"type": "path", "required": True, "aliases": ["dest", "name"], "doc": "What is managed."},
        "state": {
            "type": "str",
            "choices": ["absent", "directory", "file", "hard", "link", "touch"],
            "doc": "Default: what is there now, else directory with recurse, else file. file does not make one.",
        },
        "src": {"type": "path", "doc": "What a link points to. Relative targets are kept as they are (link)."},
        "recurse": {"type": "bool", "default": False, "doc": "Also give owner, group, mode to all within; no links."},
        "follow": {"type": "bool", "default": True, "doc": "Manage what a link at path points to."},
        "force": {"type": "bool", "default": False, "doc": "link: replace a file; allow a target that is not there."},
        "access_time": {"type": "str", "doc": 'touch: "now", "preserve" or YYYYMMDDhhmm.ss.'},
        "modification_time": {"type": "str", "doc": 'touch: "now", "preserve" or YYYYMMDDhhmm.ss.'},
        "access_time_format": {"type": "str", "default": "%Y%m%d%H%M.%S", "doc": "Format of access_time."},
        "modification_time_format": {"type": "str", "default": "%Y%m%d%H%M.%S", "doc": "Format of modification_time."},
        **attributes.ARGS,
    },
    "unsupported": attributes.UNSUPPORTED,
    "returns": {
        "path": "The path managed.",
        "dest": "The path of a link.",
        "src": "A link's target.",
        **attributes.RETURNS,
    },
}


class File(State):
    """One path of the file system."""

    _touched = False

    def probe(self) -> Change:
        """Compare what is at the path with what is wanted there."""
        path = attributes.path(self.args["path"]).rstrip("/") or "/"
        not_planned(self.call, path)
        state = self.args.get("state")
        if self.args["follow"] and state not in ("absent", "link", "hard") and os.path.islink(path):
            path = os.path.realpath(path)
            not_planned(self.call, path)
        self.path = path
        self.found = lstat(path)
        self.state = state or self._state_now()
        if self.args["recurse"] and self.state != "directory":
            raise ModuleError("recurse needs state: directory, and %s is wanted as %s" % (path, self.state))
        self.wanted = Attributes(self.call)
        change = self._compare()
        if change.differences and self.call.check:
            self.call.pending.add(path)
        key = "dest" if self.state in ("link", "hard") else "path"
        change.result = {key: path, "state": self.state, **change.result, **attributes.info(self.call, path)}
        return change

    def converge(self, change: Change) -> None:  # noqa: ARG002 - probe left all on self
        """Make the path what it has to be."""
        {"absent": self._remove, "directory": self._directory, "link": self._link, "hard": self._hard}.get(
            self.state, self._file
        )()
        if self.args["recurse"]:
            for name, found in walk(self.path):
                if self.wanted.differences(found):
                    self.wanted.apply(name)

    def _state_now(self) -> str:
        if self.found is None:
            return "link" if self.args.get("src") else "directory" if self.args["recurse"] else "file"
        if stat.S_ISLNK(self.found.st_mode):
            return "link"
        return "directory" if stat.S_ISDIR(self.found.st_mode) else "file"

    def _compare(self) -> Change:
        probes: dict[str, Callable[[], Change]] = {
            "absent": self._probe_absent,
            "directory": self._probe_directory,
            "file": self._probe_file,
            "touch": self._probe_touch,
            "link": self._probe_link,
            "hard": self._probe_hard,
        }
        return probes[self.state]()

    def _probe_absent(self) -> Change:
        if self.found is None:
            return Change()
        if self.path == "/":
            raise ModuleError("refusing to remove /")
        return self._change(["present"], "state: %s\n" % self._state_now(), "state: absent\n")

    def _probe_directory(self) -> Change:
        if self.found is None:
            above = folders_above(self.path)
            if above and not os.path.isdir(above[0]) and os.path.lexists(above[0]):
                raise ModuleError("%s is not a directory" % above[0], code="not-a-directory")
            return self._change(["absent"], "state: absent\n", "state: directory\n")
        if not stat.S_ISDIR(self.found.st_mode):
            raise ModuleError("%s is there already and is not a directory" % self.path, code="not-a-directory")
        names = self.wanted.differences(self.found)
        if self.args["recurse"]:
            inner = sum(1 for _, found in walk(self.path) if self.wanted.differences(found))
            names += ["attributes of %d within" % inner] if inner else []
        return self._attributes(names)

    def _probe_file(self) -> Change:
        if self.found is None:
            hint = "state: touch makes an empty file; copy and template make one with content"
            raise absent(self.call, "%s does not exist" % self.path, hint, code="file-missing")
        if stat.S_ISDIR(self.found.st_mode):
            raise ModuleError("%s is a directory, not a file" % self.path, code="is-a-directory")
        return self._attributes(self.wanted.differences(self.found))

    def _probe_touch(self) -> Change:
        if self.found is None:
            check_folder(self.call, self.path)
            return self._change(["absent"], "state: absent\n", "state: touch\n")
        names = self.wanted.differences(self.found)
        wanted_times = times_of(self.args, self.found)
        if self._touched:
            wanted_times = None
        if wanted_times is not None and wanted_times != (self.found.st_atime_ns, self.found.st_mtime_ns):
            names.append("times")
        return self._attributes(names)

    def _probe_link(self) -> Change:
        target = self._target()
        old = os.readlink(self.path) if self.found is not None and stat.S_ISLNK(self.found.st_mode) else None
        if old is not None and target is None:
            target = old
        if target is None:
            raise ModuleError("src is missing: what %s is to point to" % self.path)
        if old == target:
            change = self._attributes(self.wanted.differences(self.found)) if self.found else Change()
        else:
            self._may_replace(target)
            change = self._change(["target"], "src: %s\n" % old, "src: %s\n" % target)
        change.result["src"] = target
        return change

    def _target(self) -> str | None:
        src: str | None = self.args.get("src")
        if src is None:
            return None
        return os.path.expandvars(os.path.expanduser(src)) if src[:1] in "~$" or "$" in src else src

    def _may_replace(self, target: str) -> None:
        check_folder(self.call, self.path)
        full = os.path.join(os.path.dirname(self.path), target)
        if not self.args["force"] and not os.path.exists(full) and not planned(self.call, os.path.normpath(full)):
            message = "link target %s does not exist" % full
            raise absent(self.call, message, "force: true makes the link anyway", code="target-missing")
        if self.found is None or stat.S_ISLNK(self.found.st_mode):
            return
        if stat.S_ISDIR(self.found.st_mode):
            if not self.args["force"] or os.listdir(self.path):
                hint = "force: true replaces an empty directory" if not self.args["force"] else "move its content away"
                raise ModuleError("%s is a directory, not a link" % self.path, hint, code="is-a-directory")
        elif not self.args["force"]:
            raise ModuleError("%s is a file, not a link" % self.path, "force: true replaces it", code="is-a-file")

    def _probe_hard(self) -> Change:
        if not self.args.get("src"):
            raise ModuleError("src is missing: the file that %s is to be a hard link of" % self.path)
        self.source = attributes.path(self.args["src"])
        source = lstat(self.source)
        if source is None:
            raise absent(self.call, "%s does not exist" % self.source, code="target-missing")
        if self.found is not None and os.path.samestat(source, self.found):
            return self._attributes(self.wanted.differences(self.found))
        if self.found is not None and not self.args["force"]:
            message = "%s is there already and is no hard link of %s" % (self.path, self.source)
            raise ModuleError(message, "force: true replaces it", code="is-a-file")
        check_folder(self.call, self.path)
        return self._change(["link"], "", "src: %s\n" % self.source)

    def _change(self, names: list[str], before: str, after: str) -> Change:
        return Change(names, self._diff(before, after))

    def _attributes(self, names: list[str]) -> Change:
        if not names or self.found is None:
            return Change(names)
        return Change(
            names, self._diff(self.wanted.describe(self.found, False), self.wanted.describe(self.found, True))
        )

    def _diff(self, before: str, after: str) -> list[dict[str, Any]]:
        if not self.call.diff:
            return []
        return [{"before_header": self.path, "after_header": self.path, "before": before, "after": after}]

    def _remove(self) -> None:
        remove(self.path)

    def _directory(self) -> None:
        if self.found is None:
            make_folders(self.path, self.wanted)
        self.wanted.apply(self.path)

    def _file(self) -> None:
        if self.state == "touch":
            if self.found is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(self.path, flags, attributes.FILE_MODE))
                os.chmod(self.path, self.wanted.new_mode())
            times = times_of(self.args, os.lstat(self.path))
            if times is not None:
                os.utime(self.path, ns=times)
            self._touched = True
        self.wanted.apply(self.path)

    def _link(self) -> None:
        target = self._target()
        if target is not None and unlike(self.path, target):
            if self.found is not None and stat.S_ISDIR(self.found.st_mode):
                os.rmdir(self.path)
            temporary = "%s.gpuprov-%s" % (self.path, os.urandom(6).hex())
            os.symlink(target, temporary)
            os.rename(temporary, self.path)
        self.wanted.apply(self.path)

    def _hard(self) -> None:
        if self.found is None or not os.path.samestat(os.lstat(self.source), self.found):
            temporary = "%s.gpuprov-%s" % (self.path, os.urandom(6).hex())
            os.link(self.source, temporary)
            os.rename(temporary, self.path)
        self.wanted.apply(self.path)


MODULE = File
