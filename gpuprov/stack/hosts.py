"""A host as the resolver sees it: from an agent's facts, or from the short form that a person writes. Pure."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from gpuprov.errors import Problem
from gpuprov.source import place_of
from gpuprov.stack import gpus
from gpuprov.stack.model import Gpu, HostFacts
from gpuprov.stack.versions import is_version, leading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprov.stack.tables import Tables

#: Ansible's distribution -> the id of /etc/os-release, which the tables go by.
_IDS = {
    "Debian": "debian",
    "Ubuntu": "ubuntu",
    "RedHat": "rhel",
    "Rocky": "rocky",
    "AlmaLinux": "almalinux",
    "OracleLinux": "ol",
    "CentOS": "centos",
    "Fedora": "fedora",
    "Amazon": "amzn",
    "SLES": "sles",
    "openSUSE Leap": "opensuse-leap",
}
_ALIASES = {"redhat": "rhel", "red hat": "rhel", "alma": "almalinux", "oracle": "ol", "amazon": "amzn"}
#: What the survey says of a system that gpuprov does not provision -> its name in the refusal.
_KINDS = {
    "wsl": "WSL",
    "vgpu_guest": "a vGPU guest",
    "jetson": "Jetson",
    "image_based": "an image-based system",
    "dgx_os": "DGX OS",
}
#: What the short form may say.
SHORT = (
    *("gpus", "os", "arch", "kernel", "gcc", "glibc", "python", "driver", "driver_by", "driver_origin", "flavour"),
    *("secure_boot", "mok_enrolled", "nvswitches", "nvlink5_bridges", "kind"),
)
#: Other words for a key of it.
_SAME = {"key_enrolled": "mok_enrolled", "nvlink5": "nvlink5_bridges", "driver_flavour": "flavour"}
_ARCHES = {"amd64": "x86_64", "arm64": "aarch64", "sbsa": "aarch64"}


def from_facts(facts: Mapping[str, Any], tables: Tables) -> HostFacts:
    """Return what *facts*, with or without a survey, tell. What they do not tell is None."""
    own = facts.get("gpuprov") or {}
    survey = own.get("survey") or {}
    known, unknown = _devices(tables, own["gpus"] if "gpus" in own else survey.get("pci"))
    driver, module = survey.get("driver") or {}, (survey.get("modules") or {}).get("nvidia") or {}
    installed = driver.get("version") or module.get("on_disk") or own.get("driver_version") or ""
    secure = survey.get("secure_boot", own.get("secure_boot"))
    gcc = survey.get("gcc") or {}
    return HostFacts(
        gpus=tuple(known),
        unknown_gpus=tuple(unknown),
        os_id=_os_id(facts),
        os_version=_text(facts.get("distribution_version")),
        arch=_text(survey.get("arch") or facts.get("architecture")),
        kernel=_release(survey, facts),
        gcc=leading(gcc.get("version", "")),
        glibc=leading(survey.get("glibc") or own.get("glibc") or ""),
        pythons=_pythons(survey, facts),
        secure_boot=secure if isinstance(secure, bool) else None,
        key_enrolled=survey.get("mok_enrolled"),
        driver=leading(installed),
        driver_by=_text(driver.get("installed_by")),
        driver_flavour=_text(driver.get("flavour") or module.get("flavour")),
        driver_origin=_text(driver.get("repository_origin")),
        nvswitches=_count(survey.get("nvswitches")),
        nvlink5=_count(survey.get("nvlink5_bridges")),
        refused_as=_kind(survey.get("virtualization") or {}, facts),
        container=_is_container(survey, facts),
    )


def _devices(tables: Tables, found: Any) -> tuple[list[Gpu], list[str]]:
    known, unknown = [], []
    if found is None:
        return [], [""]
    for one in found:
        device = str(one.get("device", "")).lower().removeprefix("0x")
        if not str(one.get("class", "03")).removeprefix("0x").startswith("03"):
            continue  # a switch, a bridge
        if gpus.is_no_gpu(tables, device):
            continue
        gpu = gpus.by_id(tables, device)
        if gpu is None:
            unknown.append(device or "without a device id")
        else:
            known.append(gpu)
    return known, unknown


def _os_id(facts: Mapping[str, Any]) -> str | None:
    name = facts.get("distribution")
    return None if name is None else _IDS.get(str(name), str(name).lower())


def _release(survey: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    kernel = survey.get("kernel") or {}
    return _text(kernel.get("next") or kernel.get("running") or facts.get("kernel"))


def _pythons(survey: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[tuple[str, str], ...] | None:
    found = [(leading(one.get("version", "")), str(one.get("path", ""))) for one in survey.get("pythons") or ()]
    if not found:
        executable = (facts.get("python") or {}).get("executable", "")
        found = [(leading(facts.get("python_version", "")), str(executable))]
    return tuple((version, path) for version, path in found if version and "." in version) or None


def _count(value: Any) -> int | None:
    return len(value) if isinstance(value, list | tuple) else None


def _kind(virtualization: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    if facts.get("system") not in (None, "Linux"):
        return str(facts["system"])
    for key, name in _KINDS.items():
        if virtualization.get(key):
            return name
    return ""


def _is_container(survey: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Say whether the host is a container; a rehearsal host is none, whatever it is made of."""
    virtualization = survey.get("virtualization") or {}
    return bool(virtualization.get("container")) and not (facts.get("gpuprov") or {}).get("simulated")


def _text(value: Any) -> str | None:
    return None if value in (None, "") else str(value)


def from_short(tables: Tables, value: Any, problems: list[Problem]) -> HostFacts:
    """Return the host that a person describes: {gpus: [T4, T4], os: "ubuntu 22.04", python: "3.10", driver: ...}.

    What is left out is not known, except that nothing is installed. What is wrong goes to *problems*.
    """
    if not isinstance(value, dict):
        problems.append(Problem("host", "a host is a mapping, such as {gpus: [T4], os: 'ubuntu 22.04'}"))
        return HostFacts()
    problems += [unknown_key(key, SHORT, value) for key in value if _SAME.get(key, key) not in SHORT]
    read = _Short(value, problems)
    known, unknown = [], []
    for name in _listed(value.get("gpus")):
        gpu = gpus.by_name(tables, str(name))
        if gpu is None:
            unknown.append(str(name))
        else:
            known.append(gpu)
    os_id, os_version = _system(value, problems)
    row = tables.system(os_id, os_version) or {}
    pythons = read.versions("python") or ([] if "python" in value else _listed(leading(row.get("python", ""))))
    arch = read.text("arch") or "x86_64"
    driver = read.version("driver")
    return HostFacts(
        gpus=tuple(known),
        unknown_gpus=tuple(unknown),
        os_id=os_id,
        os_version=os_version,
        arch=_ARCHES.get(arch, arch),
        kernel=read.text("kernel"),
        gcc=read.version("gcc") or leading(row.get("gcc", "")),
        glibc=read.version("glibc") or leading(row.get("glibc", "")),
        pythons=tuple((version, "") for version in pythons) or None,
        secure_boot=read.boolean("secure_boot"),
        key_enrolled=read.boolean("mok_enrolled"),
        driver=driver,
        driver_by=read.text("driver_by", ("package", "runfile")) or ("package" if driver else None),
        driver_flavour=read.text("flavour", ("open", "proprietary")),
        driver_origin=read.text("driver_origin", ("nvidia", "distribution", "mixed")),
        nvswitches=read.number("nvswitches"),
        nvlink5=read.number("nvlink5_bridges"),
        refused_as="" if value.get("kind") == "container" else str(value.get("kind") or ""),
        container=value.get("kind") == "container",
        imagined=True,
    )


class _Short:
    """Reads the values of a short form; what is wrong with one is noted with its place."""

    def __init__(self, value: Mapping[str, Any], problems: list[Problem]) -> None:
        self._value = {_SAME.get(key, key): (key, given) for key, given in value.items()}
        self._whole = value
        self._problems = problems

    def _wrong(self, name: str, needed: str) -> None:
        key, given = self._value[name]
        self._problems.append(Problem("host", f"{key}: {given!r} is not {needed}", place_of(self._whole, key)))

    def _given(self, name: str) -> Any:
        return self._value.get(name, (name, None))[1]

    def text(self, name: str, allowed: tuple[str, ...] = ()) -> str | None:
        found = _text(self._given(name))
        if found is not None and allowed and found not in allowed:
            self._wrong(name, " or ".join(allowed))
            return None
        return found

    def version(self, name: str) -> str | None:
        return next(iter(self.versions(name)), None)

    def versions(self, name: str) -> list[str]:
        found = _listed(self._given(name))
        needed = 2 if name == "python" else 1
        if any(isinstance(one, float) for one in found):  # 3.10 without quotes is the number 3.1
            self._wrong(name, 'a version in quotes, such as "3.10"')
        elif any(not is_version(str(one)) or len(str(one).split(".")) < needed for one in found):
            self._wrong(name, "a version of dotted numbers")
        else:
            return [str(one) for one in found]
        return []

    def boolean(self, name: str) -> bool | None:
        found = self._given(name)
        if found is None or isinstance(found, bool):
            return found
        self._wrong(name, "true or false")
        return None

    def number(self, name: str) -> int:
        """Return how many there are; a list, as in a survey, is counted. None said is none there."""
        found = self._given(name)
        if isinstance(found, list | tuple):
            return len(found)
        if found is None or (isinstance(found, int) and found >= 0):
            return int(found or 0)
        self._wrong(name, "how many there are")
        return 0


def _system(value: Mapping[str, Any], problems: list[Problem]) -> tuple[str | None, str | None]:
    if value.get("os") is None:
        return None, None
    found = re.fullmatch(r"\s*([A-Za-z][A-Za-z .-]*?)[ -]*(\d[\d.]*)\s*", str(value["os"]))
    if found is None:
        hint = "as in 'ubuntu 24.04', 'debian 12', 'rocky 9'"
        problems.append(Problem("host", f"os {value['os']!r} is no name and version", place_of(value, "os"), hint))
        return None, None
    name = found.group(1).strip().lower()
    return _ALIASES.get(name, name), found.group(2)


def _listed(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def unknown_key(key: Any, allowed: tuple[str, ...], value: Any) -> Problem:
    """Return the problem that *value* has a key that nobody knows, with the nearest one that is."""
    near = get_close_matches(str(key), allowed, 1)
    said = f"there is no key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    return Problem("unknown-key", said, getattr(value, "keys_at", {}).get(key), f"allowed: {', '.join(allowed)}")


def short_form(host: HostFacts) -> dict[str, Any]:
    """Return *host* in the short form, for reports: what decided, without paths."""
    names = [gpu.name for gpu in host.gpus] + [f"unknown {device}".strip() for device in host.unknown_gpus]
    counted = [f"{names.count(name)} x {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)]
    found: dict[str, Any] = {"gpus": counted or ["none"]}
    if host.os_id is not None:
        found["os"] = f"{host.os_id} {host.os_version or '?'}"
    for key in ("arch", "kernel", "gcc", "glibc", "secure_boot", "driver"):
        if getattr(host, key) is not None:
            found[key] = getattr(host, key)
    if host.pythons is not None:
        found["python"] = [version for version, _ in host.pythons]
    if host.nvswitches or host.nvlink5:
        found["fabric"] = "NVLink 5 switches" if host.nvlink5 else f"{host.nvswitches} NVSwitches"
    return found
