"""The module `gpuprov_torch`: an environment's torch imports, is the one that is wanted, and uses its own libraries."""

from __future__ import annotations

import os

from gpuprov.agent import surroundings, torch_probe
from gpuprov.agent.modules.base import Action, ModuleError, absent
from gpuprov.agent.python_env import VirtualEnvironment, installed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Importing a CUDA build from a cold disk takes a while.
IMPORT_S = 300.0

SPEC: dict[str, Any] = {
    "summary": "Import torch where people will, and look at what came: versions, build, CUDA libraries.",
    "args": {
        "virtualenv": {"type": "path", "required": True, "doc": "The environment that has torch."},
        "imports": {"type": "list", "default": ["torch"], "doc": "What has to import."},
        "versions": {
            "type": "dict",
            "default": {},
            "doc": "Wanted versions by name; for the others, what the installer recorded counts.",
        },
        "variant": {"type": "str", "doc": "The build that is wanted: cpu, cu130 and so on."},
        "places": {
            "type": "list",
            "default": ["clean"],
            "doc": "Under whose variables: clean (none), login (login shells), ssh (commands over ssh), service.",
        },
        "foreign": {
            "type": "str",
            "choices": ["warn", "fail"],
            "default": "warn",
            "doc": "What CUDA libraries from outside the environment, or packages from elsewhere, are.",
        },
    },
    "returns": {
        "versions": "What was imported, by name.",
        "cuda": "The CUDA version that torch was built for; null for a CPU build.",
        "variant": "The same as cpu, cu130 and so on.",
        "places": "Of each place: its variables that matter, or why it could not be asked.",
        "findings": "What is not as it should be: place, library, reason, sentence.",
    },
}


class Torch(Action):
    """One look at an environment."""

    reads = True

    def run(self) -> dict[str, Any]:
        """Import, compare, name what is wrong. Raises ModuleError."""
        self._env = VirtualEnvironment(os.path.expanduser(self.args["virtualenv"]), self.system)
        if not os.access(self._env.python, os.X_OK):
            hint = "the role torch makes this environment: was it run?"
            raise absent(self.call, "%s does not exist" % self._env.python, hint, code="torch-missing")
        unknown = sorted(set(self.args["places"]) - set(surroundings.PLACES))
        if unknown:
            message = "place %s is none of %s" % (unknown[0], ", ".join(surroundings.PLACES))
            raise ModuleError(message, code="argument-value")
        clean = self._import({}, "clean")
        self._expect(clean)
        findings: list[dict[str, str]] = []
        places: dict[str, Any] = {}
        seen = {(): clean}
        for place in self.args["places"]:
            findings += self._look(place, places, seen)
        return self._told(clean, places, findings)

    def _expect(self, found: dict[str, Any]) -> None:
        """Raise ModuleError when the imports are not the wanted ones, whatever the variables are."""
        wrong = torch_probe.wrong_imports(found, self._expected(), self._env.path)
        have, want = torch_probe.variant(found), self.args.get("variant")
        if want and have != want and "version" in found["imports"].get("torch", {}):
            wrong.append("torch is the build %s, and %s is wanted" % (have, want))
        if wrong:
            hint = "run the role torch again; what it says stays the same, name versions that fit each other"
            raise ModuleError("; ".join(wrong), hint, code="torch-not-as-wanted", versions=_versions(found))

    def _expected(self) -> dict[str, str]:
        recorded = installed(self._env.search_path())
        expected = {name: recorded[name].version for name in self.args["imports"] if name in recorded}
        expected.update({name: str(version) for name, version in self.args["versions"].items() if version})
        return expected

    def _look(self, place: str, places: dict[str, Any], seen: dict[Any, dict[str, Any]]) -> list[dict[str, str]]:
        """Return what is wrong in one place. A place with the variables of an earlier one is not tried again."""
        try:
            given = surroundings.ask(place, self.system)
        except surroundings.Untold as reason:
            places[place] = {"skipped": str(reason)}
            return []
        env = {name: value for name, value in given.items() if value and torch_probe.MATTERS.fullmatch(name)}
        places[place] = env
        key = tuple(sorted(env.items()))
        if key not in seen:
            seen[key] = self._import(env, place)
        found, prefix = seen[key], self._env.path
        sentences = [
            {"place": place, "sentence": one, "reason": ", ".join("%s=%s" % pair for pair in key)}
            for one in torch_probe.wrong_imports(found, self._expected(), prefix)
        ]
        loaded = torch_probe.foreign(found, prefix)
        for path in loaded:
            sentences.append(_finding(place, path, env, "is loaded instead of the wheel's own"))
        for path in torch_probe.hidden(env, prefix, loaded):
            sentences.append(_finding(place, path, env, "comes before the wheel's own"))
        return sentences

    def _import(self, env: dict[str, str], place: str) -> dict[str, Any]:
        imports = [str(one) for one in self.args["imports"]]
        argv = torch_probe.words(self._env.python, imports, isolated=place == "clean")
        done = self.system.run(argv, env=env, timeout_s=IMPORT_S)
        found = torch_probe.answer(done.out)
        if found is None:
            message = "importing %s did not come to its end (%s)" % (", ".join(self.args["imports"]), done.why)
            said = ": " + done.last_line if done.last_line else ""
            if place == "clean":
                raise ModuleError(message + said, code="torch-import-died", stderr=done.err[-2000:])
            found = {"imports": {"torch": {"error": message + said}}, "cuda": None, "maps": []}
        return found

    def _told(self, clean: dict[str, Any], places: dict[str, Any], findings: list[dict[str, str]]) -> dict[str, Any]:
        result = {
            "versions": _versions(clean),
            "cuda": clean["cuda"],
            "variant": torch_probe.variant(clean),
            "places": places,
            "findings": findings,
        }
        lines = _grouped(findings)
        if lines and self.args["foreign"] == "fail":
            hint = "take the folder out of that variable or file: torch's wheels bring their own CUDA libraries"
            raise ModuleError("; ".join(lines), hint, code="torch-foreign-libraries", **result)
        self.call.warnings.extend(lines)
        said = ", ".join("%s %s" % pair for pair in result["versions"].items())
        return dict(result, changed=False, msg="%s (%s)" % (said, result["variant"]))


def _finding(place: str, path: str, env: dict[str, str], what: str) -> dict[str, str]:
    reason = torch_probe.reason(path, env)
    return {"place": place, "library": path, "reason": reason, "sentence": "%s %s" % (path, what)}


def _grouped(findings: list[dict[str, str]]) -> list[str]:
    """Return one sentence for each thing, with all places where it is so. Pure."""
    places: dict[tuple[str, str], list[str]] = {}
    for one in findings:
        places.setdefault((one["sentence"], one["reason"]), []).append(one["place"])
    return ["%s (%s): %s" % (sentence, ", ".join(where), reason) for (sentence, reason), where in places.items()]


def _versions(found: dict[str, Any]) -> dict[str, str]:
    return {name: said.get("version", said.get("error", "")) for name, said in found["imports"].items()}


MODULE = Torch
