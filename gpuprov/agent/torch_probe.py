"""What an environment's torch is when it is imported, and which CUDA libraries the loader gave it.

The child that imports torch is asked (/proc/self/maps), not the files: which of two libraries wins depends
on RPATH, RUNPATH, LD_LIBRARY_PATH and ld.so.conf together, and only the loader knows. Judging is pure.
"""

from __future__ import annotations

import glob
import json
import os
import re

from gpuprov.agent import requirement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Before the child's answer: programs that are imported may print what they like.
MARK = "gpuprov-torch-probe:"
#: Libraries that torch's wheels bring; the driver's own (libcuda, libnvidia-ml) belong to the system.
CUDA = re.compile(
    r"lib(cudart|cudnn\w*|cublas\w*|nccl\w*|cufft\w*|cusparse\w*|cusolver\w*|curand|nvrtc[\w-]*|nvJitLink|cupti|nvshmem\w*)"
    r"\.so[\d.]*"
)
#: Variables that decide what is imported or loaded.
MATTERS = re.compile(r"LD_(?:LIBRARY_PATH|PRELOAD|AUDIT)|PYTHON(?:PATH|HOME|STARTUP|USERBASE)")
SOURCE = """
import json, sys
found = {"python": "%d.%d.%d" % sys.version_info[:3], "imports": {}}
for name in sys.argv[1:]:
    try:
        module = __import__(name)
    except BaseException as error:
        found["imports"][name] = {"error": (type(error).__name__ + ": " + str(error))[:500]}
    else:
        found["imports"][name] = {"version": str(getattr(module, "__version__", "")), "file": module.__file__ or ""}
torch = sys.modules.get("torch")
found["cuda"] = getattr(getattr(torch, "version", None), "cuda", None)
with open("/proc/self/maps") as maps:
    found["maps"] = sorted({line.split(None, 5)[5].strip() for line in maps if ".so" in line})
print("\\n" + MARK + json.dumps(found))
"""


def words(python: str, imports: list[str], isolated: bool) -> list[str]:
    """Return the command that imports *imports*; isolated: PYTHON... variables and user packages do not count."""
    source = "MARK = %r\n%s" % (MARK, SOURCE)
    return [python, *(["-I"] if isolated else []), "-B", "-c", source, *imports]


def answer(out: str) -> dict[str, Any] | None:
    """Return what the child said; None when it did not come to its end."""
    for line in reversed(out.splitlines()):
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line[len(MARK) :])
            return found
    return None


def wrong_imports(found: dict[str, Any], expected: dict[str, str], prefix: str) -> list[str]:
    """Return a sentence for each import that failed, has another version than expected, or is not *prefix*'s. Pure."""
    wrong = []
    for name, said in found["imports"].items():
        want = expected.get(name, "")
        if "error" in said:
            wrong.append("import %s fails: %s" % (name, said["error"]))
        elif not _inside(said["file"], prefix):
            wrong.append("%s is imported from %s, not from %s" % (name, said["file"], prefix))
        elif want and not requirement.parse("x==%s" % want).allows(said["version"]):
            wrong.append("%s is %s, and %s is wanted" % (name, said["version"], want))
    return wrong


def variant(found: dict[str, Any]) -> str:
    """Return the build that was imported: "cpu", "cu130". Pure."""
    cuda = found.get("cuda")
    return "cu" + "".join(str(cuda).split(".")[:2]) if cuda else "cpu"


def foreign(found: dict[str, Any], prefix: str) -> list[str]:
    """Return the CUDA libraries that were loaded from elsewhere than the environment. Pure, but for links."""
    loaded = [path for path in found["maps"] if CUDA.fullmatch(os.path.basename(path))]
    return [path for path in loaded if not _inside(path, prefix)]


def hidden(env: dict[str, str], prefix: str, loaded: list[str]) -> list[str]:
    """Return libraries in folders of LD_LIBRARY_PATH that the environment has, too, and that are not loaded yet.

    They come first when torch loads its own later, as cuDNN does with its parts.
    """
    own = _own_libraries(prefix)
    found = []
    for folder in env.get("LD_LIBRARY_PATH", "").split(":"):
        for name in sorted(os.listdir(folder)) if folder and os.path.isdir(folder) else ():
            path = os.path.join(folder, name)
            if (
                name in own
                and path not in loaded
                and os.path.realpath(path) not in loaded
                and not _inside(path, prefix)
            ):
                found.append(path)
    return list(dict.fromkeys(found))


def _own_libraries(prefix: str) -> set[str]:
    site = os.path.join(prefix, "lib", "python3*", "site-packages")
    places = [os.path.join(site, "nvidia", "*", "lib"), os.path.join(site, "torch", "lib")]
    names = (name for place in places for folder in glob.glob(place) for name in os.listdir(folder))
    return {name for name in names if CUDA.fullmatch(name)}


def reason(path: str, env: dict[str, str], conf: str = "/etc/ld.so.conf") -> str:
    """Return what put a library in front: a variable with its folder, a file of ld.so.conf, or the system's folders."""
    folders = {os.path.realpath(os.path.dirname(one)) for one in (path, os.path.realpath(path))}
    for name in ("LD_PRELOAD", "LD_AUDIT"):
        if any(os.path.basename(one) == os.path.basename(path) for one in re.split(r"[:\s]+", env.get(name, ""))):
            return "%s=%s" % (name, env[name])
    for one in env.get("LD_LIBRARY_PATH", "").split(":"):
        if one and os.path.realpath(one) in folders:
            return "LD_LIBRARY_PATH has %s" % one
    for file, one in configured(conf):
        if os.path.realpath(one) in folders:
            return "%s has %s" % (file, one)
    return "%s is searched by the loader itself" % os.path.dirname(path)


def configured(conf: str) -> list[tuple[str, str]]:
    """Return (file, folder) for each line of ld.so.conf and what it includes."""
    found = []
    try:
        with open(conf, encoding="utf-8", errors="replace") as f:
            lines = [line.partition("#")[0].strip() for line in f]
    except OSError:
        return []
    for line in lines:
        if line.startswith("include "):
            pattern = os.path.join(os.path.dirname(conf), line.split(None, 1)[1])
            for file in sorted(glob.glob(pattern)):
                found += configured(file)
        elif line.startswith("/"):
            found.append((conf, line))
    return found


def _inside(path: str, prefix: str) -> bool:
    real, above = os.path.realpath(path), os.path.realpath(prefix)
    return real.startswith(above + "/") or path.startswith(prefix + "/")
