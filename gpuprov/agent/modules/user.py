"""The module `user`."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import re
import time

from gpuprov.agent.modules.accounts import local_line, tool
from gpuprov.agent.modules.base import Change, ModuleError, ProbeError, State, absent, planned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.system import System

_LOGIN_DEFS = re.compile(r"^(HOME_MODE|UMASK)\s+([0-7]+)", re.MULTILINE)

SPEC: dict[str, Any] = {
    "summary": "A user account.",
    "args": {
        "name": {"type": "str", "required": True, "aliases": ["user"], "doc": "Login name."},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present", "doc": "Whether it exists."},
        "uid": {"type": "int", "doc": "Number."},
        "non_unique": {"type": "bool", "default": False, "doc": "Allow a uid that another user has."},
        "group": {"type": "str", "doc": "Primary group; it must exist."},
        "groups": {"type": "list", "doc": 'Further groups. [] or "" takes the user out of all others.'},
        "append": {"type": "bool", "default": False, "doc": "Only add to groups, take nothing away."},
        "comment": {"type": "str", "doc": "Full name (GECOS)."},
        "shell": {"type": "path", "doc": "Login shell."},
        "home": {"type": "path", "doc": "Home directory."},
        "create_home": {"type": "bool", "default": True, "aliases": ["createhome"], "doc": "Make the home directory."},
        "move_home": {"type": "bool", "default": False, "doc": "Move the old home when home changes."},
        "skeleton": {"type": "path", "doc": "What a new home is filled with. Default /etc/skel."},
        "system": {"type": "bool", "default": False, "doc": "Take the number from the system range."},
        "password": {"type": "str", "doc": 'Password hash ("$6$..."), never plain text. "!" locks, "*" disables.'},
        "update_password": {
            "type": "str",
            "choices": ["always", "on_create"],
            "default": "always",
            "doc": "on_create: do not change the password of an existing user.",
        },
        "password_lock": {"type": "bool", "doc": "Lock or unlock the password."},
        "expires": {"type": "float", "doc": "When the account ends, in seconds since 1970; negative: never."},
        "remove": {"type": "bool", "default": False, "doc": "absent: remove the home directory and mail, too."},
        "force": {"type": "bool", "default": False, "doc": "absent: even while the user is logged in."},
        "local": {"type": "bool", "default": False, "doc": "Accepted; accounts are always made locally."},
    },
    "unsupported": {
        "generate_ssh_key": "use a command task with ssh-keygen and creates",
        "ssh_key_bits": "use a command task with ssh-keygen",
        "ssh_key_comment": "use a command task with ssh-keygen",
        "ssh_key_file": "use a command task with ssh-keygen",
        "ssh_key_passphrase": "use a command task with ssh-keygen",
        "ssh_key_type": "use a command task with ssh-keygen",
        "password_expire_max": "use a command task with chage",
        "password_expire_min": "use a command task with chage",
        "password_expire_warn": "use a command task with chage",
        "password_expire_account_disable": "use a command task with chage",
        "umask": "set HOME_MODE in /etc/login.defs",
        "seuser": "SELinux users are mapped with semanage login",
        "login_class": "it is for BSD",
        "profile": "it is for Solaris",
        "authorization": "it is for Solaris",
        "role": "it is for Solaris",
        "hidden": "it is for macOS",
        "uid_min": "set it in /etc/login.defs",
        "uid_max": "set it in /etc/login.defs",
    },
    "returns": {
        "name": "Login name.",
        "uid": "Number.",
        "group": "Number of the primary group.",
        "groups": "Further groups asked for, comma-separated.",
        "home": "Home directory.",
        "shell": "Login shell.",
        "comment": "Full name.",
        "state": "present or absent.",
    },
}


class User(State):
    """One user account and its home directory."""

    def probe(self) -> Change:
        """Compare the account with what is wanted."""
        name, state = self.args["name"], self.args["state"]
        try:
            self.entry: pwd.struct_passwd | None = pwd.getpwnam(name)
        except KeyError:
            self.entry = None
        change = Change(result={"name": name, "state": state})
        if state == "absent":
            change.differences = ["present"] if self.entry else []
        elif self.entry is None:
            self._primary_group()
            change.differences = ["absent"]
        else:
            change.differences = self._differences(self.entry)
            change.result.update(_described(self.entry))
        if self.args.get("groups") is not None:
            change.result["groups"] = ",".join(str(group) for group in self.args["groups"])
        if change.differences and self.call.check and not planned(self.call, "user " + name):
            self.call.pending.add("user " + name)
            self.call.pending.add("group " + name)  # useradd makes a group of the same name
        if change.differences and self.call.diff:
            change.diff = [self._diff(change.differences)]
        return change

    def converge(self, change: Change) -> None:
        """Make, change or remove the account."""
        name = self.args["name"]
        if "present" in change.differences:
            words = (["-r"] if self.args["remove"] else []) + (["-f"] if self.args["force"] else [])
            tool(self.call, "userdel", *words, name)
            return
        if "absent" in change.differences:
            tool(self.call, "useradd", *self._options(), *self._creation(), name)
        else:
            words = self._options(set(change.differences))
            if words:
                tool(self.call, "usermod", *words, name)
        if self.args["create_home"]:
            self._make_home(pwd.getpwnam(name))

    def _differences(self, entry: pwd.struct_passwd) -> list[str]:
        want = self.args.get
        pairs = [
            ("uid", want("uid"), entry.pw_uid),
            ("group", self._primary_group(), entry.pw_gid),
            ("comment", want("comment"), entry.pw_gecos),
            ("shell", want("shell"), entry.pw_shell),
            ("home", want("home"), entry.pw_dir),
        ]
        names = [name for name, wanted, found in pairs if wanted is not None and wanted != found]
        if want("groups") is not None and self._groups_differ(entry):
            names.append("groups")
        names += self._shadow_differences()
        if self.args["create_home"] and not os.path.isdir(want("home") or entry.pw_dir):
            names.append("home directory")
        return names

    def _primary_group(self) -> int | None:
        wanted = self.args.get("group")
        return None if wanted is None else self._gid(wanted)

    def _gid(self, group: str) -> int:
        """Return a group's number. Raises ModuleError, or NeedsEarlierChange in check mode."""
        try:
            return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
        except KeyError:
            if planned(self.call, "group " + group):
                return -1
            hint = "make it in an earlier task"
            raise absent(
                self.call, "group %s does not exist on this host" % group, hint, code="group-unknown"
            ) from None

    def _groups_differ(self, entry: pwd.struct_passwd) -> bool:
        wanted = {self._gid(str(group)) for group in self.args["groups"]}
        if self.args["append"] and self.args["groups"]:
            return not wanted <= set(os.getgrouplist(entry.pw_name, entry.pw_gid))
        found = {group.gr_gid for group in grp.getgrall() if entry.pw_name in group.gr_mem}
        primary = self._primary_group()
        own = entry.pw_gid if primary is None else primary
        return wanted - {own} != found - {own}

    def _shadow_differences(self) -> list[str]:
        want = self.args.get
        only_new = self.args["update_password"] == "on_create"  # noqa: S105 - no password
        password = None if only_new else want("password")
        if password is None and want("password_lock") is None and want("expires") is None:
            return []
        try:
            fields = local_line(self.call, "/etc/shadow", self.args["name"])
        except OSError as error:
            hint = "become: true gives the right to" if error.errno == errno.EACCES else ""
            raise ProbeError("cannot read /etc/shadow: %s" % error.strerror, hint) from None
        if fields is None:
            raise ProbeError("user %s is not in /etc/shadow: it is not a local account" % self.args["name"])
        names = []
        if password is not None and (fields[1].lstrip("!") or fields[1]) != (password.lstrip("!") or password):
            names.append("password")
        if want("password_lock") is not None and want("password_lock") != fields[1].startswith("!"):
            names.append("password lock")
        if self.args.get("expires") is not None and fields[7] != _days(self.args["expires"]):
            names.append("expires")
        return names

    def _options(self, only: set[str] | None = None) -> list[str]:
        """Return what useradd and usermod have in common, for all or for what differs."""
        words: list[str] = []
        for name, option in (("uid", "-u"), ("group", "-g"), ("comment", "-c"), ("shell", "-s"), ("home", "-d")):
            if self.args.get(name) is not None and (only is None or name in only):
                words += [option, str(self.args[name])]
                words += ["-o"] if name == "uid" and self.args["non_unique"] else []
                words += ["-m"] if name == "home" and only is not None and self.args["move_home"] else []
        if self.args.get("groups") is not None and (only is None or "groups" in only):
            words += ["-a"] if only is not None and self.args["append"] else []
            words += ["-G", ",".join(str(group) for group in self.args["groups"])]
        if self.args.get("password") is not None and (only is None or "password" in only):
            words += ["-p", self._password()]
        elif only is not None and "password lock" in only:
            words += ["-L"] if self.args["password_lock"] else ["-U"]
        if self.args.get("expires") is not None and (only is None or "expires" in only):
            days = _days(self.args["expires"])
            words += ["-e", time.strftime("%Y-%m-%d", time.gmtime(int(days) * 86400)) if days else ""]
        return words

    def _password(self) -> str:
        password: str = self.args["password"]
        return "!" + password if self.args.get("password_lock") and not password.startswith("!") else password

    def _creation(self) -> list[str]:
        words = ["-r"] if self.args["system"] else []
        if self.args.get("group") is None and _group_exists(self.args["name"]):
            words.append("-N")  # useradd would refuse to make the group that is there already
        if not self.args["create_home"]:
            return [*words, "-M"]
        return [*words, "-m", *(["-k", self.args["skeleton"]] if self.args.get("skeleton") else [])]

    def _make_home(self, entry: pwd.struct_passwd) -> None:
        """Make a home that is missing, filled from the skeleton, all owned by the user."""
        if os.path.isdir(entry.pw_dir):
            return
        if os.path.lexists(entry.pw_dir):
            raise ModuleError("home %s is there already and is not a directory" % entry.pw_dir, code="not-a-directory")
        from gpuprov.agent.modules.tree import fill_home

        skeleton = self.args.get("skeleton") or "/etc/skel"
        fill_home(entry.pw_dir, skeleton, entry.pw_uid, entry.pw_gid, _home_mode(self.system))

    def _diff(self, names: list[str]) -> dict[str, str]:
        before = {} if self.entry is None else _described(self.entry)
        after = {k: self.args[k] for k in ("uid", "group", "home", "shell", "comment") if self.args.get(k) is not None}
        if self.args["state"] == "absent":
            return {"before": _text(before), "after": ""}
        # A password's hash is never shown; that it changes is.
        extra = {name: "(changed)" for name in names if name not in after and name != "absent"}
        return {"before": _text(before), "after": _text({**before, **after, **extra})}


def _described(entry: pwd.struct_passwd) -> dict[str, Any]:
    return {
        "uid": entry.pw_uid,
        "group": entry.pw_gid,
        "home": entry.pw_dir,
        "shell": entry.pw_shell,
        "comment": entry.pw_gecos,
    }


def _text(values: dict[str, Any]) -> str:
    return "".join("%s: %s\n" % item for item in values.items())


def _group_exists(name: str) -> bool:
    try:
        return bool(grp.getgrnam(name))
    except KeyError:
        return False


def _home_mode(system: System) -> int:
    """Return the mode that useradd gives to new homes, by /etc/login.defs."""
    found = dict(_LOGIN_DEFS.findall(system.read_text("/etc/login.defs")))
    if "HOME_MODE" in found:
        return int(found["HOME_MODE"], 8)
    return 0o777 & ~int(found.get("UMASK", "022"), 8)


def _days(seconds: float) -> str:
    """Return /etc/shadow's day number; "" for never."""
    return "" if seconds < 0 else str(int(seconds // 86400))


MODULE = User
