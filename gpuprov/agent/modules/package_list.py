"""All packages of this host with their versions, whatever the package manager."""

from __future__ import annotations

import os
import re

from gpuprov.agent.modules import dpkg
from gpuprov.agent.modules.base import ProbeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.agent.system import System

_QUERY = "%{NAME}\\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\\t%{ARCH}\\n"
_FIELD = re.compile(r"^(Package|Status|Architecture|Version): (.*)$", re.MULTILINE)


def all_packages(system: System) -> dict[str, str]:
    """Return name -> version of what is installed completely. Raises ProbeError when it cannot be told.

    Packages of another architecture than dpkg's own have it in their name ("libc6:i386"); of several
    versions (kernels, on rpm) the versions stand in one text, separated by blanks.
    """
    if os.path.exists(dpkg.STATUS):
        return _of_dpkg(system)
    if system.which("rpm"):
        return _of_rpm(system)
    raise ProbeError("this host has neither dpkg nor rpm, so its packages cannot be listed")


def _of_dpkg(system: System) -> dict[str, str]:
    found: dict[str, str] = {}
    stanzas = [dict(_FIELD.findall(text)) for text in dpkg.database(system).decode("utf-8", "replace").split("\n\n")]
    native = next((s["Architecture"] for s in stanzas if s.get("Package") == "dpkg"), "")
    for stanza in stanzas:
        if stanza.get("Status", "").split()[-1:] != ["installed"]:
            continue
        arch = stanza.get("Architecture", "")
        name = stanza["Package"] if arch in (native, "all") else "%(Package)s:%(Architecture)s" % stanza
        found.setdefault(name, stanza["Version"])
    return found


def _of_rpm(system: System) -> dict[str, str]:
    lines: list[str] = []  # what is kept of a program's output is bounded, and a host may have thousands of packages
    done = system.run(["rpm", "-qa", "--qf", _QUERY], timeout_s=120, on_line=lambda _, line: lines.append(line))
    if done.rc != 0:
        raise ProbeError("rpm does not list its packages: %s" % (done.last_line or done.why))
    found: dict[str, list[str]] = {}
    for line in (one for one in lines if one.count("\t") == 2):
        name, _, rest = line.partition("\t")
        found.setdefault(name, []).append(rest.partition("\t")[0])
    return {name: " ".join(sorted(versions)) for name, versions in found.items()}
