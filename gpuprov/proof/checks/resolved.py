"""What the running process has loaded, against what was resolved for this host, and where it came from. Pure."""

from __future__ import annotations

import os
import re

from gpuprov.proof.check import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context

TITLES = {"torch": "torch", "cuda": "CUDA of torch", "cudnn": "cuDNN", "nccl": "NCCL", "driver": "NVIDIA driver"}
#: CUDA libraries, by the stem of their files. libcuda and libnvidia-* are the driver's and come from the system.
_STEM = re.compile(
    r"^lib(?:cudart|cublas|cublasLt|cudnn\w*|cufft|curand|cusolver|cusparse\w*|nccl|nvrtc\S*?|nvJitLink|cupti|nvToolsExt)(?=[-.])"
)


def resolved(context: Context, found: Message) -> list[Message]:
    """Return one check per version that was resolved for this host: what runs has to be just that."""
    wanted = context.expect.get("versions") or {}
    if not wanted:
        return [check("resolved", "skip", "nothing was resolved for this host: there is nothing to compare with")]
    return [_same(key, str(version), found) for key, version in wanted.items() if key in TITLES]


def _same(key: str, wanted: str, found: Message) -> Message:
    name, title = f"resolved.{key}", TITLES[key]
    has = found.get(key)
    if has is None:
        why = found.get(key + "_reason") or found.get("available_reason") or "the process did not tell"
        return check(
            name, "unknown", f"{title} {wanted} was resolved, what runs could not be read: {why}", expected=wanted
        )
    if agrees(str(has), wanted):
        return check(name, "pass", f"{title} {has} runs, as resolved", measured=has, expected=wanted)
    reason = f"{title} {has} runs, but {wanted} was resolved for this host"
    return check(name, "fail", reason, measured=has, expected=wanted)


def agrees(has: str, wanted: str) -> bool:
    """Say whether *has* is *wanted* or more exactly the same: 12.8.1 is 12.8, 2.13.0+cpu is 2.13.0. Pure."""
    parts = re.split(r"[+-]", has)[0].split(".")
    given = re.split(r"[+-]", wanted)[0].split(".")
    return parts[: len(given)] == given


def loaded(maps: Iterable[str]) -> dict[str, list[str]]:
    """Return stem -> files of the CUDA libraries in the lines of /proc/self/maps. Pure."""
    found: dict[str, set[str]] = {}
    for line in maps:
        path = line.rstrip("\n").partition("/")[2]
        name = os.path.basename(path)
        match = _STEM.match(name)
        if match:
            found.setdefault(match.group(), set()).add("/" + path)
    return {stem: sorted(paths) for stem, paths in sorted(found.items())}


def libraries(context: Context, found: Message) -> list[Message]:  # noqa: ARG001 - what all such parts get
    """Return the check that CUDA libraries come from the environment of this Python, each only once."""
    return [judge_libraries(found["libraries"], found["prefix"], found["cuda"])]


def judge_libraries(files: Mapping[str, list[str]], prefix: str, cuda: str | None) -> Message:
    """Judge where CUDA libraries were loaded from. *prefix*: the folder of the environment. Pure."""
    name = "libraries"
    if cuda is None:
        return check(name, "skip", "torch is the CPU build: it loads no CUDA library")
    if not files:
        return check(name, "unknown", "torch has CUDA, but no CUDA library is loaded in its process")
    twice = [f"{stem}: {' and '.join(paths)}" for stem, paths in files.items() if len(paths) > 1]
    folder = prefix.rstrip("/") + "/"
    foreign = [path for paths in files.values() for path in paths if not path.startswith(folder)]
    where = {stem: paths[0] for stem, paths in list(files.items())[:20]}
    evidence = (twice or foreign)[:5]
    if twice:
        reason = f"two files of one library are loaded at the same time: {evidence[0]}"
        return check(name, "fail", reason, measured=len(twice), expected=0, data={"evidence": evidence})
    if foreign:
        reason = (
            f"{len(foreign)} CUDA libraries come from outside {prefix}: {foreign[0]}; LD_LIBRARY_PATH or ld.so.conf"
        )
        return check(name, "warn", reason, measured=len(foreign), expected=0, data={"evidence": evidence})
    reason = f"{len(files)} CUDA libraries are loaded, each once, all from {prefix}"
    return check(
        name, "pass", reason, measured=len(files), data={"evidence": [f"{k}: {v}" for k, v in where.items()][:5]}
    )
