"""Owner, group and mode of paths: what is wanted, what differs, how it is set."""

from __future__ import annotations

import os
import re
import stat

from gpuprov.agent.modules.base import ModuleError, absent, planned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.modules.base import Call

#: What new files and folders get when no mode is given: independent of anybody's umask.
FILE_MODE = 0o644
DIRECTORY_MODE = 0o755

#: Arguments that every module which manages paths shares.
ARGS: dict[str, Any] = {
    "mode": {"type": "mode", "doc": 'Octal ("0644") or symbolic ("u+x,g=rX"). Default: as it is, new files 0644.'},
    "owner": {"type": "str", "doc": "User name or number. Default: as it is."},
    "group": {"type": "str", "doc": "Group name or number. Default: as it is."},
}
UNSUPPORTED: dict[str, str] = {
    "seuser": "SELinux labels are kept as they are; set them with semanage and restorecon",
    "serole": "SELinux labels are kept as they are; set them with semanage and restorecon",
    "setype": "SELinux labels are kept as they are; set them with semanage and restorecon",
    "selevel": "SELinux labels are kept as they are; set them with semanage and restorecon",
    "attributes": "use a command task with chattr",
    "attr": "use a command task with chattr",
    "unsafe_writes": "files are always replaced in one atomic step",
}
RETURNS: dict[str, str] = {
    "mode": 'Mode as text ("0644").',
    "owner": "Owner's name.",
    "group": "Group's name.",
    "uid": "Owner's number.",
    "gid": "Group's number.",
    "size": "Size in bytes.",
    "state": "file, directory, link, hard or absent.",
}

_OCTAL = re.compile(r"^(0o)?[0-7]{1,5}$")
_CLAUSE = re.compile(r"^([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)$")
_STEP = re.compile(r"([-+=])([rwxXstugo]*)")
#: Who -> where its three permission bits are.
_SHIFT = {"u": 6, "g": 3, "o": 0}
_ALL_BITS = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
#: An earlier task would make this user or group (check mode only): its number is not known yet.
_PENDING = -2


def path(value: str) -> str:
    """Return a path with ~ and $VARIABLES replaced. Raises ModuleError unless it is absolute then."""
    if value[:1] == "~":
        value = os.path.expanduser(value)
    if "$" in value:
        value = os.path.expandvars(value)
    if value[:1] != "/":
        raise ModuleError("path %r is not absolute" % value, "start it with / or ~")
    if "//" in value or "/./" in value or value.endswith("/."):
        value = "/" + "/".join(part for part in value.split("/")[:-1] if part not in ("", ".")) + "/" + _last(value)
    return value.replace("//", "/")


def _last(value: str) -> str:
    last = value.rsplit("/", 1)[1]
    return "" if last == "." else last


def lstat(name: str) -> os.stat_result | None:
    """Return what is at *name*, not following a link, or None. Raises OSError when it cannot be told."""
    try:
        return os.lstat(name)
    except (FileNotFoundError, NotADirectoryError):
        return None


def parse_mode(text: str, current: int, directory: bool) -> int:
    """Return the mode that *text* asks of something whose mode is *current*. Raises ModuleError."""
    if _OCTAL.match(text):
        return int(text.replace("0o", ""), 8) & 0o7777
    mode = current
    for clause in text.split(","):
        match = _CLAUSE.match(clause.strip())
        if not match:
            raise ModuleError("mode %r is neither octal nor symbolic" % text, 'examples: "0644", "u=rw,g=r,o="')
        for operator, what in _STEP.findall(match.group(2)):
            mode = _symbolic(mode, match.group(1), operator, what, directory)
    return mode


def _symbolic(mode: int, who: str, operator: str, what: str, directory: bool) -> int:
    everyone = not who or "a" in who
    for one in "ugo" if everyone else who:
        bits = _bits(mode, one, what, directory)
        if not who and operator != "=":
            bits &= ~0o022  # as chmod does under the usual umask when it is not said for whom
        if operator == "-":
            mode &= ~bits
        elif operator == "+":
            mode |= bits
        else:
            keep = 0o6000 if directory else 0  # chmod leaves a folder's set-id bits alone
            mode = mode & ~(_ALL_BITS[one] & ~keep) | bits
    return mode


def _bits(mode: int, who: str, what: str, directory: bool) -> int:
    if what in _SHIFT:
        return (mode >> _SHIFT[what] & 7) << _SHIFT[who]
    bits = 0
    for letter in what:
        if letter == "s":
            bits |= {"u": stat.S_ISUID, "g": stat.S_ISGID, "o": 0}[who]
        elif letter == "t":
            bits |= stat.S_ISVTX if who == "o" else 0
        elif letter != "X" or directory or mode & 0o111:
            bits |= {"r": 4, "w": 2, "x": 1, "X": 1}[letter] << _SHIFT[who]
    return bits


class Attributes:
    """The owner, group and mode that a task asks for. Looks users and groups up at once."""

    __slots__ = ("_mode", "gid", "uid")

    def __init__(self, call: Call, mode: str | None = None) -> None:
        self._mode: str | None = mode if mode is not None else call.args.get("mode")
        owner, group = call.args.get("owner"), call.args.get("group")
        self.uid = -1 if owner is None else _uid(call, owner)
        self.gid = -1 if group is None else _gid(call, group)
        if self._mode is not None:
            parse_mode(self._mode, 0, False)

    def mode(self, current: int | None, directory: bool = False) -> int | None:
        """Return the mode wanted of something whose mode is *current* (None: new), or None for as it is."""
        if self._mode is None:
            return None
        base = (DIRECTORY_MODE if directory else FILE_MODE) if current is None else stat.S_IMODE(current)
        return parse_mode(self._mode, base, directory)

    def new_mode(self, directory: bool = False) -> int:
        """Return the mode that a new file or folder gets."""
        mode = self.mode(None, directory)
        return (DIRECTORY_MODE if directory else FILE_MODE) if mode is None else mode

    def differences(self, found: os.stat_result) -> list[str]:
        """Return which of owner, group and mode differ from what was *found*. A link has no mode."""
        names = []
        if self.uid not in (-1, found.st_uid):
            names.append("owner")
        if self.gid not in (-1, found.st_gid):
            names.append("group")
        if not stat.S_ISLNK(found.st_mode):
            mode = self.mode(found.st_mode, stat.S_ISDIR(found.st_mode))
            if mode is not None and mode != stat.S_IMODE(found.st_mode):
                names.append("mode")
        return names

    def apply(self, name: str) -> None:
        """Give *name* (a link itself, not its target) what it lacks. Raises OSError."""
        found = os.lstat(name)
        lacks = self.differences(found)
        if "owner" in lacks or "group" in lacks:
            os.lchown(name, self.uid, self.gid)
            found = os.lstat(name)  # chown may have cleared set-id bits
            lacks = self.differences(found)
        if "mode" in lacks:
            mode = self.mode(found.st_mode, stat.S_ISDIR(found.st_mode))
            assert mode is not None
            os.chmod(name, mode)

    def describe(self, found: os.stat_result, wanted: bool) -> str:
        """Return lines "mode: 0644" for --diff of what differs: as found, or as wanted."""
        lines = []
        for name in self.differences(found):
            if name == "mode":
                mode = self.mode(found.st_mode, stat.S_ISDIR(found.st_mode)) if wanted else stat.S_IMODE(found.st_mode)
                lines.append("mode: %04o\n" % (mode or 0))
            elif name == "owner":
                lines.append("owner: %s\n" % (user_name(self.uid) if wanted else user_name(found.st_uid)))
            else:
                lines.append("group: %s\n" % (group_name(self.gid) if wanted else group_name(found.st_gid)))
        return "".join(lines)


def info(call: Call, name: str) -> dict[str, Any]:
    """Return Ansible's keys about a path, when somebody reads them."""
    if not call.registered:
        return {}
    found = lstat(name)
    if found is None:
        return {"state": "absent"}
    kind = "hard" if found.st_nlink > 1 else "file"
    kind = "link" if stat.S_ISLNK(found.st_mode) else "directory" if stat.S_ISDIR(found.st_mode) else kind
    return {
        "mode": "%04o" % stat.S_IMODE(found.st_mode),
        "owner": user_name(found.st_uid),
        "group": group_name(found.st_gid),
        "uid": found.st_uid,
        "gid": found.st_gid,
        "size": found.st_size,
        "state": kind,
    }


def user_name(uid: int) -> str:
    """Return a user's name, or its number as text when it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def group_name(gid: int) -> str:
    """Return a group's name, or its number as text when it has none."""
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return str(gid)


def _uid(call: Call, owner: str) -> int:
    if owner.isdigit():
        return int(owner)
    import pwd

    try:
        return pwd.getpwnam(owner).pw_uid
    except KeyError:
        return _unmade(call, "user", owner)


def _gid(call: Call, group: str) -> int:
    if group.isdigit():
        return int(group)
    import grp

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return _unmade(call, "group", group)


def _unmade(call: Call, kind: str, name: str) -> int:
    if planned(call, "%s %s" % (kind, name)):
        return _PENDING
    message = "%s %s does not exist on this host" % (kind, name)
    raise absent(call, message, "make it in an earlier task, or use a number", code="%s-unknown" % kind)
