"""The survey: what has to be known of a host before a driver, a toolkit and torch can be chosen for it.

Facts that cost more than a millisecond, so only runs that need the stack ask for them. Every part is on its
own: what one cannot tell is left out, with the reason under "untold"; never guessed.
"""

from __future__ import annotations

from gpuprov.agent.survey_host import Host, Untold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpuprov.agent.system import System

    Part = Callable[[Host, dict[str, Any]], dict[str, Any]]

#: Module (after survey_), function, and the keys that it answers. Later parts may look at what earlier ones found.
_PARTS = (
    ("pci", "devices", ("pci", "nvswitches", "nvlink5_bridges")),
    ("kernel", "kernel", ("kernel",)),
    ("tools", "compilers", ("gcc", "glibc", "arch")),
    ("firmware", "secure_boot", ("secure_boot",)),
    ("firmware", "module_signing", ("module_signing",)),
    ("firmware", "mok_enrolled", ("mok_enrolled",)),
    ("modules", "modules", ("modules",)),
    ("packages", "packages", ("packages",)),
    ("packages", "holds", ("holds",)),
    ("packages", "broken", ("dpkg_broken", "dpkg_interrupted")),
    ("packages", "unattended", ("unattended_upgrades",)),
    ("locks", "package_lock", ("package_lock",)),
    ("driver", "driver", ("driver",)),
    ("toolkits", "toolkits", ("toolkits",)),
    ("use", "gpu_processes", ("gpu_processes",)),
    ("use", "disk_free", ("disk_free",)),
    ("system", "virtualization", ("virtualization",)),
    ("tools", "pythons", ("pythons",)),
    ("tools", "conda", ("conda",)),
    ("proxy", "proxy", ("proxy",)),
    ("repositories", "repositories", ("repositories",)),
    ("applied", "applied", ("applied",)),
    ("environments", "environments", ("environments",)),
)


def survey(system: System, root: str = "", network: bool = False) -> dict[str, Any]:
    """Return what is known of the host. Blocking: files, a handful of short programs.

    root is another root folder to look at. network adds whether the package sources answer, in at most 3 s.
    """
    host = Host(system, root)
    found: dict[str, Any] = {}
    for module, function, keys in _PARTS:
        try:
            found.update(part(module, function)(host, found))
        except (Untold, OSError, ValueError, LookupError) as error:  # a file of a shape that nobody has seen yet
            why = str(error) if isinstance(error, Untold) else "%s: %s" % (type(error).__name__, error)
            host.untold.update(dict.fromkeys(keys, why))
    if network and "repositories" in found:
        from gpuprov.agent.survey_reach import reach

        found["repositories"] = reach(host, found["repositories"])
    found["untold"] = host.untold
    return found


def part(module: str, function: str) -> Part:
    """Return one part of the survey. Its file is read only now."""
    loaded = __import__("gpuprov.agent.survey_" + module, fromlist=[function])
    found: Part = getattr(loaded, function)
    return found
