"""Survey: the driver that is installed: by packages or by NVIDIA's runfile, from where, and of what version."""

from __future__ import annotations

import os
import re

from gpuprov.agent.survey_host import Host, Untold
from gpuprov.agent.survey_packages import Package, every

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Packages that move with the driver's version.
_DRIVER = re.compile(
    r"(lib)?nvidia-|cuda-drivers|(kmod|dkms|akmod|xserver-xorg-video|xorg-x11-drv|linux-(modules|objects|signatures))-nvidia"
    r"|libcuda1\b|libnvcuvid1\b|libnvoptix1\b|nvlsm|libnvsdm|nvlink5"
)
#: Packages of NVIDIA's whose versions have nothing to do with the driver's.
_OTHERS = re.compile(
    r"(lib)?nvidia-(container|docker|cuda-(toolkit|dev|gdb|samples)|cudnn|cg-|gds|fs|profiler|visual|nsight|openjdk|ml-dev"
    r"|detect|driver-assistant|opencl-dev|ctk|egl-wayland|egl-gbm)"
)
#: Packages that hold the kernel module or libcuda: with one of these a driver is installed.
_CORE = re.compile(
    r"nvidia-(dkms|kernel|open-kernel|kmod|headless)-|nvidia-driver(-\d+\S*|-cuda\S*|-libs|)$|libnvidia-compute|libcuda1\b"
    r"|(kmod|dkms|akmod)-nvidia|linux-(modules|objects)-nvidia|xorg-x11-drv-nvidia|nvidia-open-driver|nvidia-compute-utils"
)
_OPEN = re.compile(r"-open\b")
#: What only the runfile leaves behind.
_RUNFILE = ("/usr/bin/nvidia-uninstall", "/usr/local/bin/nvidia-uninstall", "/var/lib/nvidia/log")
_LIBRARY = "libnvidia-ml.so.1"
_LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
_UPSTREAM = re.compile(r"(?:\d+:)?(\d+(?:\.\d+)+)")
#: Who makes a package (dpkg's Maintainer, rpm's Vendor) -> whose repository it is from.
_MAKERS = (
    (
        "distribution",
        r"@debian\.org|debian-nvidia|@lists\.debian|alioth\.debian|tracker\.debian|ubuntu\.com|canonical\.com",
    ),
    ("nvidia", r"nvidia\.com|^NVIDIA"),
    ("distribution", r"Red Hat|Rocky|AlmaLinux|Oracle|SUSE|Fedora|Amazon|CentOS|CloudLinux"),
)


def driver(host: Host, found: dict[str, Any]) -> dict[str, Any]:
    """Return {"driver": {"installed_by", "packages", "version", "flavour", "repository_origin"}}."""
    packages = [p for p in every(host) if p.there and _DRIVER.match(p.name) and not _OTHERS.match(p.name)]
    core = [p for p in packages if _CORE.match(p.name)]
    library = _library_version(host)
    answer: dict[str, Any] = {"packages": {p.name: p.version for p in packages}}
    module = found.get("modules", {}).get("nvidia", {})
    if any(host.exists(path) for path in _RUNFILE):
        answer["installed_by"] = "runfile"
    elif core:
        answer["installed_by"] = "package"
    elif library or module.get("loaded") or module.get("by_kernel"):
        host.untold["driver.installed_by"] = "a driver is there, but no package has it and the runfile left no trace"
    elif "by_kernel" not in module:
        host.untold["driver.installed_by"] = "no package has one, and which modules are on the disk could not be told"
    else:
        answer["installed_by"] = None
    answer["version"] = library or _packaged_version(core)
    answer["flavour"] = _flavour(module, core)
    _add_origin(host, answer, core)
    return {"driver": answer}


def _library_version(host: Host) -> str | None:
    """Return the version of the library that programs talk to the driver with; None without one."""
    for folder in _LIBRARY_FOLDERS:
        path = "%s/%s" % (folder, _LIBRARY)
        if host.exists(path):
            version = os.path.basename(host.real(path))[len("libnvidia-ml.so.") :]
            if not _UPSTREAM.fullmatch(version):
                raise Untold("%s does not say its version" % path)
            return version
    return None


def _packaged_version(core: list[Package]) -> str | None:
    versions = sorted({match.group(1) for match in (_UPSTREAM.match(p.version) for p in core) if match})
    return versions[0] if len(versions) == 1 else None


def _flavour(module: dict[str, Any], core: list[Package]) -> str | None:
    """Return the flavour of the installed module: by its file for a kernel, else by the package that builds it."""
    flavours = {entry["flavour"] for entry in module.get("by_kernel", {}).values() if entry["flavour"]}
    if len(flavours) == 1:
        return str(flavours.pop())
    makers = [p for p in core if re.search(r"dkms|kmod|linux-(modules|objects)|kernel-(open|source)|headless", p.name)]
    if not makers:
        return None
    return "open" if any(_OPEN.search(p.name) for p in makers) else "proprietary"


def _add_origin(host: Host, answer: dict[str, Any], core: list[Package]) -> None:
    origins = {_origin(p.maker) for p in core}
    if not core:
        answer["repository_origin"] = None
    elif len(origins) == 1 and "" not in origins:
        answer["repository_origin"] = origins.pop()
    elif "" in origins:
        p = next(p for p in core if not _origin(p.maker))
        host.untold["driver.repository_origin"] = "%s is made by %s" % (p.name, p.maker or "nobody that it names")
    else:
        answer["repository_origin"] = "mixed"


def _origin(maker: str) -> str:
    return next((origin for origin, pattern in _MAKERS if re.search(pattern, maker, re.IGNORECASE)), "")
