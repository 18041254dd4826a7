"""The module `setup`: the host's facts, read again."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase

from gpuprov.agent import facts, facts_more
from gpuprov.agent.modules.base import Action, ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Words of gather_subset that are gpuprov's own.
_SURVEY, _SURVEY_NETWORK = "gpuprov_survey", "gpuprov_survey_network"

SPEC: dict[str, Any] = {
    "summary": "Read the host's facts again, with mounts and network interfaces.",
    "args": {
        "filter": {"type": "list", "doc": "Patterns of names, with or without ansible_: only these are returned."},
        "gather_subset": {
            "type": "list",
            "doc": "gpuprov_survey adds gpuprov.survey, gpuprov_survey_network also asks whether package sources"
            " answer. Others are accepted: all other facts are cheap, so all are read.",
        },
        "gather_timeout": {"type": "int", "doc": "Accepted; nothing is read that could block."},
        "fact_path": {"type": "path", "default": facts.FACTS_D, "doc": "Folder with the site's own *.fact files."},
    },
    "returns": {"ansible_facts": "The facts, without the ansible_ prefix."},
}


class Setup(Action):
    """All facts, or those asked for."""

    reads = True

    def run(self) -> dict[str, Any]:
        """Return the facts. Raises ModuleError when fact_path is given and missing."""
        folder = self.args["fact_path"]
        if folder != facts.FACTS_D and not os.path.isdir(folder):
            raise ModuleError("fact_path %s is no directory" % folder, code="not-a-directory")
        found = {**facts.gather(self.system), **facts_more.gather(self.system)}
        found["local"] = {**facts.local(self.system, folder), **facts_more.run_local(self.system, folder)}
        subset = self.args.get("gather_subset") or []
        if _SURVEY in subset or _SURVEY_NETWORK in subset:
            from gpuprov.agent.survey import survey

            found["gpuprov"]["survey"] = survey(self.system, network=_SURVEY_NETWORK in subset)
        patterns = [pattern.replace("ansible_", "", 1) for pattern in self.args.get("filter") or []]
        if patterns:
            found = {name: value for name, value in found.items() if _any(name, patterns)}
        return {"changed": False, "ansible_facts": found}


def _any(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


MODULE = Setup
