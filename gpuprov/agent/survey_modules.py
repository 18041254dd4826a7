"""Survey: kernel modules of NVIDIA and nouveau, those that are loaded and those that lie on the disk."""

from __future__ import annotations

import os
import re

from gpuprov.agent.survey_host import Host, Untold, known

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LOADED = "/sys/module"
_NAMES = ("nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm", "nvidia_peermem", "nvidia_fs", "gdrdrv")
_OTHERS = ("nouveau", "nova_core")
#: Where packages, DKMS and the runfile put modules below /lib/modules/RELEASE, in modprobe's order.
_FOLDERS = ("updates", "extra", "weak-updates", "kernel/drivers/video", "misc")
#: nvidia.ko, and Debian's nvidia-current.ko, nvidia-current-open.ko, nvidia-tesla-470.ko: not their helpers.
_FILE = re.compile(r"nvidia(-(current|tesla|legacy)(-[\dx]+)?)?(-open)?\.ko(\.(xz|zst|gz))?")
_FIELD = re.compile(r"^(filename|version|license|signer|vermagic):\s*(.*)$", re.MULTILINE)
_FLAVOURS = {"Dual MIT/GPL": "open", "NVIDIA": "proprietary"}


def modules(host: Host, found: dict[str, Any]) -> dict[str, Any]:
    """Return {"modules": {"nvidia": {...}, "nouveau": {"loaded"}, ...}}."""
    if not host.exists(_LOADED):
        raise Untold("sysfs is not mounted")
    answer: dict[str, Any] = {name: _state(host, name) for name in (*_NAMES, *_OTHERS)}
    nvidia = answer["nvidia"]
    nvidia["version"] = host.text(_LOADED + "/nvidia/version").strip() or _proc(host)[0] or None
    flavour = _proc(host)[1] if nvidia["loaded"] else None
    try:
        kernel = known(found, "kernel")
        files = _on_disk(host, sorted(kernel["headers"]))
        running = files.get(kernel["running"])
        nvidia["on_disk"] = running and running.get("version")
        nvidia["license"] = running and running.get("license")
        nvidia["flavour"] = flavour or (running and running.get("flavour"))
        nvidia["by_kernel"] = files
    except Untold as error:
        host.untold["modules.nvidia.on_disk"] = str(error)
        if nvidia["loaded"]:
            nvidia["flavour"] = flavour
    return {"modules": answer}


def _state(host: Host, name: str) -> dict[str, Any]:
    folder = "%s/%s" % (_LOADED, name)
    if not host.exists(folder):
        return {"loaded": False}
    users = host.text(folder + "/refcnt").strip()
    return {"loaded": True, **({"users": int(users)} if users.isdigit() else {})}


def _proc(host: Host) -> tuple[str, str | None]:
    """Return version and flavour of the loaded module, by its own words."""
    text = host.text("/proc/driver/nvidia/version")
    version = re.search(r"Module\s+(?:for \S+\s+)?(\d+(?:\.\d+)+)", text)
    flavour = None if not version else "open" if "Open Kernel Module" in text else "proprietary"
    return version.group(1) if version else "", flavour


def _on_disk(host: Host, releases: list[str]) -> dict[str, dict[str, Any]]:
    """Return release -> {"path", "version", "license", "flavour", "signer"} of the module that it would load."""
    paths = {release: path for release, path in ((r, _file(host, r)) for r in releases) if path}
    if not paths:
        return {}
    said = _modinfo(host, [host.at(path) for path in paths.values()])
    answer = {}
    for release, path in paths.items():
        fields = said.get(host.at(path))
        if fields is None:
            raise Untold("modinfo does not understand %s" % path)
        answer[release] = {
            "path": path,
            "version": fields.get("version"),
            "license": fields.get("license"),
            "flavour": _FLAVOURS.get(fields.get("license", "")),
            "signer": fields.get("signer") or None,
        }
    return answer


def _file(host: Host, release: str) -> str | None:
    top = "/lib/modules/%s/" % release
    # Ubuntu's own signed modules: kernel/nvidia-580srv-open/nvidia.ko
    own = ["kernel/" + name for name in host.names(top + "kernel") if name.startswith("nvidia")]
    for folder in (*_FOLDERS, *own):
        for parent, folders, names in os.walk(host.at(top + folder)):
            folders.sort()
            name = next((name for name in sorted(names) if _FILE.fullmatch(name)), None)
            if name:
                return top + folder + parent[len(host.at(top + folder)) :] + "/" + name
    return None


def _modinfo(host: Host, paths: list[str]) -> dict[str, dict[str, str]]:
    """Return path -> fields, from one process for all of them. Raises Untold."""
    program = host.which("modinfo")
    if not program:
        raise Untold("the host has no modinfo (package kmod)")
    done = host.run([program, *paths])
    said: dict[str, dict[str, str]] = {}
    fields: dict[str, str] = {}
    for key, value in _FIELD.findall(done.out):
        if key == "filename":
            fields = said.setdefault(value.strip(), {})
        fields.setdefault(key, value.strip())
    if not said:
        raise Untold("modinfo: %s" % (done.last_line or done.why))
    return said
