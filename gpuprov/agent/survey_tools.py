"""Survey: compiler, C library, Pythons, and whether a conda environment is active."""

from __future__ import annotations

import os
import re
import sys

from gpuprov.agent.survey_host import Host, Untold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FOLDERS = ("/usr/bin", "/usr/local/bin", "/bin")
_OTHERS = ("/opt", "/usr/local")  # python3.12 below /opt/python/bin, /opt/python3.12/bin ...
_PYTHON = re.compile(r"python3(\.\d+)?")
_PLATFORM = "/usr/libexec/platform-python"
_ASK = "import sys;print('%d.%d.%d' % sys.version_info[:3])"


def compilers(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - one signature for all parts
    """Return {"gcc": {"version"}, or None without one; "glibc", "arch"}."""
    answer: dict[str, Any] = {"arch": os.uname().machine}
    try:
        glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
    except ValueError:
        glibc = []
    if len(glibc) == 2:
        answer["glibc"] = glibc[1]
    else:
        host.untold["glibc"] = "the C library is not glibc"
    try:
        answer["gcc"] = _gcc(host)
    except Untold as error:
        host.untold["gcc"] = str(error)
    return answer


def _gcc(host: Host) -> dict[str, str] | None:
    program = host.which("gcc")
    if not program:
        return None
    done = host.run([program, "-dumpfullversion", "-dumpversion"])
    version = done.out.strip()
    if done.rc != 0 or not re.fullmatch(r"\d+(\.\d+)*", version):
        raise Untold("gcc does not say its version: %s" % (done.last_line or done.why))
    return {"version": version}


def pythons(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Return {"pythons": [{"path", "version"}], oldest first, each interpreter once}; others than ours are run."""
    answer = []
    seen: set[str] = set()
    for path in _python_paths(host):
        real = host.real(path)
        if real in seen:
            continue
        seen.add(real)
        try:
            answer.append({"path": path, "version": _version(host, path, real)})
        except Untold as error:
            host.untold["pythons:" + path] = str(error)
    return {"pythons": sorted(answer, key=lambda p: ([int(n) for n in p["version"].split(".")], p["path"]))}


def _python_paths(host: Host) -> list[str]:
    below = ["%s/%s/bin" % (top, name) for top in _OTHERS for name in host.names(top) if name.startswith("python")]
    paths = []
    for folder in (*_FOLDERS, *below):
        named = [name for name in host.names(folder) if _PYTHON.fullmatch(name)]
        paths += ["%s/%s" % (folder, name) for name in sorted(named, key=len, reverse=True)]  # python3.11 says more
    return [*paths, _PLATFORM] if host.exists(_PLATFORM) else paths


def _version(host: Host, path: str, real: str) -> str:
    if not host.root and real == os.path.realpath(sys.executable):
        return "%d.%d.%d" % sys.version_info[:3]
    done = host.run([path, "-I", "-S", "-B", "-c", _ASK])
    if done.rc != 0 or not re.fullmatch(r"3\.\d+\.\d+", done.out.strip()):
        raise Untold("it does not run: %s" % (done.last_line or done.why))
    return done.out.strip()


def conda(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Return {"conda": prefix of the environment that a login gets, or None}."""
    prefix = os.environ.get("CONDA_PREFIX", "") if not host.root else ""
    if not prefix:
        lines = re.findall(
            r"^(?:export\s+)?CONDA_PREFIX=[\"']?([^\"'\s]+)", host.text("/etc/environment"), re.MULTILINE
        )
        prefix = lines[-1] if lines else ""
    if not prefix and not host.root and os.path.isdir(os.path.join(sys.prefix, "conda-meta")):
        prefix = sys.prefix
    return {"conda": prefix or None}
