"""The module `group`."""

from __future__ import annotations

import grp

from gpuprov.agent.modules.accounts import local_line, tool
from gpuprov.agent.modules.base import Change, ModuleError, State, planned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "A group of users.",
    "args": {
        "name": {"type": "str", "required": True, "doc": "Its name."},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present", "doc": "Whether it exists."},
        "gid": {"type": "int", "doc": "Its number."},
        "system": {"type": "bool", "default": False, "doc": "Take the number from the system range."},
        "non_unique": {"type": "bool", "default": False, "doc": "Allow a gid that another group has."},
        "force": {"type": "bool", "default": False, "doc": "Remove it although it is some user's primary group."},
        "local": {"type": "bool", "default": False, "doc": "Look only at /etc/group, not at the network."},
    },
    "unsupported": {
        "gid_min": "set it in /etc/login.defs",
        "gid_max": "set it in /etc/login.defs",
    },
    "returns": {"name": "Its name.", "gid": "Its number.", "state": "present or absent.", "system": "As asked."},
}


class Group(State):
    """One group."""

    def probe(self) -> Change:
        """Compare the group with what is wanted."""
        name, state = self.args["name"], self.args["state"]
        self.gid = self._find(name)
        change = Change(result={"name": name, "state": state, "system": self.args["system"]})
        if state == "absent":
            change.differences = ["present"] if self.gid is not None else []
        elif self.gid is None:
            change.differences = ["absent"]
        else:
            change.result["gid"] = self.gid
            change.differences = ["gid"] if self.args.get("gid") not in (None, self.gid) else []
        if change.differences and self.call.check and not planned(self.call, "group " + name):
            self.call.pending.add("group " + name)
        if change.differences and self.call.diff:
            change.diff = [{"before": _line(name, self.gid), "after": self._after(name)}]
        return change

    def converge(self, change: Change) -> None:
        """Make, change or remove the group."""
        name = self.args["name"]
        if "present" in change.differences:
            tool(self.call, "groupdel", *(["-f"] if self.args["force"] else []), name)
            return
        words = []
        if self.args.get("gid") is not None:
            words += ["-g", str(self.args["gid"])] + (["-o"] if self.args["non_unique"] else [])
        if "absent" in change.differences:
            tool(self.call, "groupadd", *words, *(["-r"] if self.args["system"] else []), name)
        else:
            tool(self.call, "groupmod", *words, name)

    def _find(self, name: str) -> int | None:
        if self.args["local"]:
            fields = local_line(self.call, "/etc/group", name)
            return int(fields[2]) if fields else None
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            return None
        except OSError as error:
            raise ModuleError("cannot look up group %s: %s" % (name, error)) from None

    def _after(self, name: str) -> str:
        if self.args["state"] == "absent":
            return ""
        wanted = self.args.get("gid")
        return _line(name, self.gid if wanted is None else wanted) or "%s\n" % name


def _line(name: str, gid: int | None) -> str:
    return "" if gid is None else "%s gid=%d\n" % (name, gid)


MODULE = Group
