"""Survey: CUDA toolkits, wherever they were put."""

from __future__ import annotations

import json
import os
import re

from gpuprov.agent.survey_packages import every

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.survey_host import Host

#: Folders in which toolkits are put, as cuda, cuda-12 and cuda-12.8, and the name of one.
_PARENTS = ("/usr/local", "/opt")
_NAME = re.compile(r"cuda(-\d+(\.\d+)?)?")
#: The distribution's own toolkit: Debian's and Ubuntu's nvidia-cuda-toolkit.
_DISTRIBUTION = "nvidia-cuda-toolkit"


def toolkits(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - one signature for all parts
    """Return {"toolkits": [{"prefix", "version", "installed_by", "nvcc"}]}, links to them left out."""
    named = [os.environ.get("CUDA_HOME", ""), os.environ.get("CUDA_PATH", "")] if not host.root else []
    named += ["%s/%s" % (parent, name) for parent in _PARENTS for name in host.names(parent) if _NAME.fullmatch(name)]
    prefixes = sorted({host.real(prefix) for prefix in named if prefix.startswith("/") and host.exists(prefix)})
    packages = every(host)
    answer = []
    for prefix in prefixes:
        version = _version(host, prefix)
        if version:
            names = [p.name for p in packages if p.there]
            answer.append(_toolkit(host, prefix, version, names))
    for p in packages:
        if p.name == _DISTRIBUTION and p.there:
            # 11.8.89~11.8.0-5~deb12u1: of nvcc, and of CUDA
            number = re.search(r"~(\d+(?:\.\d+)+)", p.version) or re.search(r"(\d+(?:\.\d+)+)", p.version)
            nvcc = host.exists("/usr/bin/nvcc")
            answer.append(
                {"prefix": "/usr", "version": number and number.group(1), "installed_by": "package", "nvcc": nvcc}
            )
    return {"toolkits": answer}


def _toolkit(host: Host, prefix: str, version: str, names: list[str]) -> dict[str, Any]:
    toolkit: dict[str, Any] = {"prefix": prefix, "version": version, "nvcc": host.exists(prefix + "/bin/nvcc")}
    suffix = "-" + "-".join(version.split(".")[:2])  # cuda-nvcc-12-8
    if host.exists(prefix + "/bin/cuda-uninstaller"):
        toolkit["installed_by"] = "runfile"
    elif any(name.startswith(("cuda-", "libcu")) and name.endswith(suffix) for name in names):
        toolkit["installed_by"] = "package"
    else:
        host.untold["toolkits:" + prefix] = "no package has it, and it has no uninstaller of the runfile's"
    return toolkit


def _version(host: Host, prefix: str) -> str:
    """Return the version that a toolkit says it has, or that its folder's name has; "" for another thing."""
    text = host.text(prefix + "/version.json")
    if text:
        try:
            return str(json.loads(text)["cuda"]["version"])
        except (ValueError, LookupError, TypeError):
            host.untold["toolkits:" + prefix] = "its version.json does not say the version of CUDA"
            return ""
    old = re.search(r"CUDA Version (\d+(?:\.\d+)+)", host.text(prefix + "/version.txt"))
    if old:
        return old.group(1)
    named = re.fullmatch(r"cuda-(\d+\.\d+)", os.path.basename(prefix))
    return named.group(1) if named else ""
