"""The module `gpuprov_applied_info`: what gpuprov has recorded on this host; changes nothing."""

from __future__ import annotations

from gpuprov.agent.modules.base import Action
from gpuprov.agent.modules.gpuprov_applied import last_stack, read
from gpuprov.agent.modules.package_list import all_packages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "What gpuprov has recorded on this host: the stack, its packages and files.",
    "args": {},
    "returns": {
        "recorded": "Whether there is a record.",
        "stack": "The stack that was applied last, or null.",
        "packages": "Packages that came with it and are still there.",
        "changed_packages": "Packages that were there before and changed since: name -> the version before.",
        "files": "Files that were made for it.",
    },
}


class AppliedInfo(Action):
    """The record, read."""

    reads = True

    def run(self) -> dict[str, Any]:
        """Return it. Raises ProbeError when it cannot be told.

        A run that did not come to its end counts: what came since its package list was kept is in the list.
        """
        record = read(self.system)
        now = all_packages(self.system) if record else {}
        added = {name for name in record.get("added", ()) if name in now}
        begun = record.get("begun")
        if begun is not None:
            added |= now.keys() - begun["packages"].keys()
        files = {path for entry in record.get("applied", ()) for path in entry.get("files", ())}
        changed = {name: old for name, old in record.get("changed", {}).items() if now.get(name, old) != old}
        return {
            "changed": False,
            "recorded": bool(record),
            "stack": last_stack(record),
            "packages": sorted(added),
            "changed_packages": changed,
            "files": sorted(files),
        }


MODULE = AppliedInfo
