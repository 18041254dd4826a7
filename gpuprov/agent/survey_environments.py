"""Survey: the Python environments that gpuprov makes, and which torch is in them, by names of files."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.survey_host import Host

#: Where environments are made unless an inventory says otherwise.
FOLDER = "/opt/gpuprov"
#: What a stack says about an environment.
_PACKAGES = ("torch", "torchvision", "torchaudio")
_INFO = re.compile(r"(%s)-([0-9][^-]*)\.dist-info" % "|".join(_PACKAGES))
_VERSION = re.compile(r"^version(?:_info)?\s*=\s*(\d+\.\d+(?:\.\d+)?)", re.MULTILINE)


def environments(host: Host, found: dict[str, Any]) -> dict[str, Any]:
    """Return {"environments": path -> {"python", "torch", "torchvision", "torchaudio"}; None for what is not there}.

    Those in /opt/gpuprov, and those that the record of what was applied names.
    """
    paths = ["%s/%s" % (FOLDER, name) for name in host.names(FOLDER)]
    record = found.get("applied") or {}
    entries = record.get("applied") if isinstance(record, dict) else None
    if isinstance(entries, list) and entries and isinstance(entries[-1], dict):
        paths += [str(path) for path in entries[-1].get("environments") or ()]
    answer = {}
    for path in dict.fromkeys(paths):
        settings = host.text(path + "/pyvenv.cfg")
        if settings:
            version = _VERSION.search(settings)
            answer[path] = dict(_packages(host, path), python=version.group(1) if version else None)
    return {"environments": answer}


def _packages(host: Host, path: str) -> dict[str, str | None]:
    versions: dict[str, str | None] = dict.fromkeys(_PACKAGES)
    for python in host.names(path + "/lib"):
        for name in host.names("%s/lib/%s/site-packages" % (path, python)):
            one = _INFO.fullmatch(name)
            if one:
                versions[one.group(1)] = one.group(2)
    return versions
