"""The module `sysctl`: kernel settings, in a file and in the kernel."""

from __future__ import annotations

import errno
import os
import re

from gpuprov.agent.modules import attributes
from gpuprov.agent.modules.base import Change, ModuleError, ProbeError, State
from gpuprov.agent.modules.content import check_folder, difference, not_planned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "A kernel setting.",
    "args": {
        "name": {"type": "str", "required": True, "aliases": ["key"], "doc": "The setting: vm.swappiness."},
        "value": {"type": "str", "aliases": ["val"], "doc": "Its value."},
        "state": {
            "type": "str",
            "choices": ["present", "absent"],
            "default": "present",
            "doc": "absent: not in the file.",
        },
        "sysctl_file": {"type": "path", "default": "/etc/sysctl.conf", "doc": "The file it is written to."},
        "sysctl_set": {"type": "bool", "default": False, "doc": "Also compare and set the running kernel's value."},
        "reload": {"type": "bool", "default": True, "doc": "Give the file's settings to the kernel when it changed."},
        "ignoreerrors": {"type": "bool", "default": False, "doc": "Unknown settings in the file are no failure."},
    },
    "returns": {"name": "The setting.", "value": "Its value.", "sysctl_file": "The file."},
}
_BLANKS = re.compile(r"\s+")


class Sysctl(State):
    """One kernel setting."""

    def probe(self) -> Change:
        """Compare the file, and with sysctl_set the running kernel."""
        self.file = attributes.path(self.args["sysctl_file"])
        self.name = self.args["name"].replace("/", ".") if "/" in self.args["name"] else self.args["name"]
        self.value = _normal(self.args.get("value"))
        if self.args["state"] == "present" and not self.value:
            raise ModuleError("value is missing for %s" % self.name)
        not_planned(self.call, self.file)
        exists = os.path.exists(self.file)
        if not exists:
            check_folder(self.call, self.file)
        self.before = self.system.read_text(self.file) if exists else ""
        self.after = self._edited(self.before)
        change = Change(result={"name": self.name, "value": self.value, "sysctl_file": self.file})
        if self.after != self.before:
            change.differences.append("file")
        if self.args["sysctl_set"] and self.args["state"] == "present" and self._kernel() != self.value:
            change.differences.append("kernel")
        if change.differences and self.call.check:
            self.call.pending.add(self.file)
        if change.differences and self.call.diff:
            before = self.before.encode() if exists else None
            change.diff = [difference(self.file, before, self.after.encode())]
        return change

    def converge(self, change: Change) -> None:
        """Write the file, and give the settings to the kernel."""
        if "file" in change.differences:
            self.system.replace(self.file, data=self.after.encode("utf-8", "surrogateescape"))
            if self.args["reload"]:
                self._reload()
        if "kernel" in change.differences and self._kernel() != self.value:
            self._set(self.name, self.value)

    def _edited(self, text: str) -> str:
        """Return the file's text with the setting once, in its place, or without it."""
        lines, done = [], False
        for line in text.splitlines():
            key, equals, old = line.partition("=")
            if not equals or line.lstrip()[:1] in ("#", ";") or _name(key) != _name(self.name):
                lines.append(line)
            elif self.args["state"] == "present" and not done:
                lines.append(line if _normal(old) == self.value else "%s = %s" % (key.strip(), self.value))
                done = True
        if self.args["state"] == "present" and not done:
            lines.append("%s = %s" % (self.name, self.value))
        edited = "".join("%s\n" % line for line in lines)
        return text if edited.rstrip("\n") == text.rstrip("\n") else edited

    def _kernel(self) -> str:
        """Return the running kernel's value. Raises ProbeError."""
        try:
            return _normal(self.system.read(_path(self.name)).decode("utf-8", "replace"))
        except FileNotFoundError:
            hint = "check the name; the module that brings it may not be loaded"
            raise ProbeError("the kernel has no setting %s" % self.name, hint, code="sysctl-unknown") from None
        except OSError as error:
            raise ProbeError("cannot read %s: %s" % (_path(self.name), error.strerror)) from None

    def _reload(self) -> None:
        """Give every setting of the file to the kernel."""
        for line in self.after.splitlines():
            key, equals, value = line.strip().partition("=")
            if not equals or key[:1] in ("#", ";"):
                continue
            name, optional = key.strip(), self.args["ignoreerrors"]
            if name.startswith("-"):  # sysctl.d(5): failing is allowed
                name, optional = name[1:], True
            try:
                self._set(name, _normal(value))
            except ModuleError:
                if not optional:
                    raise

    def _set(self, name: str, value: str) -> None:
        try:
            fd = os.open(_path(name), os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, value.encode() + b"\n")
            finally:
                os.close(fd)
        except OSError as error:
            raise _refused(name, value, error) from None


def _refused(name: str, value: str, error: OSError) -> ModuleError:
    code = "sysctl-refused"
    if error.errno == errno.EROFS:
        hint = "set it on the machine that the container runs on, or leave it out with reload: false"
        return ModuleError("kernel settings are read-only here (a container): %s" % name, hint, code="sysctl-read-only")
    if error.errno == errno.ENOENT:
        hint = "check the name; the module that brings it may not be loaded; ignoreerrors: true passes over it"
        return ModuleError("the kernel has no setting %s" % name, hint, code="sysctl-unknown")
    if error.errno in (errno.EINVAL, errno.ERANGE):
        return ModuleError("the kernel does not take %r for %s" % (value, name), code=code)
    if error.errno in (errno.EACCES, errno.EPERM):
        return ModuleError("%s may not be set" % name, "become: true is missing, or it is read-only", code=code)
    return ModuleError("%s: %s" % (name, error.strerror), code=code)


def _name(text: str) -> str:
    """Return a setting's name in one spelling: no blanks, no leading -, dots for slashes."""
    return text.strip().lstrip("-").replace("/", ".")


def _path(name: str) -> str:
    """Return the setting's file. In a/b.c the dot belongs to a name (an interface), as sysctl(8) has it."""
    plain = name.strip()
    first = min((plain.find(char) for char in "./" if char in plain), default=-1)
    if first >= 0 and plain[first] == "/":
        return os.path.join("/proc/sys", plain)
    return os.path.join("/proc/sys", plain.translate({ord("."): "/", ord("/"): "."}))


def _normal(value: str | None) -> str:
    return _BLANKS.sub(" ", str(value or "")).strip()


MODULE = Sysctl
