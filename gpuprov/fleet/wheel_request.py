"""What a pip task asks for, and for which kind of host; what its wheels are. Pure, but for reading wheels."""

from __future__ import annotations

import os
import re
import zipfile
from typing import TYPE_CHECKING, Any

from gpuprov.agent import requirement, requirement_file
from gpuprov.agent.modules.pip_install import cuda_packages
from gpuprov.errors import RefusedError
from gpuprov.fleet.pip_python import Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def described_wheel(path: str, name: str, version: str, sha256: str) -> dict[str, Any]:
    """Return what hosts are told of a wheel. Raises OSError, RefusedError when it is none."""
    try:
        with zipfile.ZipFile(path) as wheel:
            installed_bytes = sum(info.file_size for info in wheel.infolist())
    except zipfile.BadZipFile:
        raise RefusedError(f"{path} is no wheel", hint="remove it and run again", code="bad-wheel") from None
    return {
        "kind": "wheel",
        "name": name,
        "version": version,
        "filename": os.path.basename(path),
        "sha256": sha256,
        "size": os.path.getsize(path),
        "installed_bytes": installed_bytes,
    }


def variant_of(packages: Sequence[tuple[str, str]]) -> str:
    """Return which build of torch (name, version) pairs hold: "cpu", "cu130", "" without torch. Pure."""
    have = dict(packages)
    if "torch" not in have:
        return ""
    local = have["torch"].partition("+")[2]
    if local:
        return local
    for name, version in have.items():
        if re.fullmatch(r"nvidia-cuda-runtime(?:-cu\d+)?|cuda-toolkit", name):
            return "cu" + "".join(version.split(".")[:2])
    return "cuda" if cuda_packages([f"{name}=={version}" for name, version in packages]) else "cpu"


def check_variant(wanted: str, packages: Sequence[tuple[str, str]]) -> None:
    """Raise RefusedError when (name, version) pairs hold another build of torch than the one that is wanted."""
    found = variant_of(packages)
    if wanted and found and found != wanted:
        raise RefusedError(
            f"torch {dict(packages)['torch']} is the build {found}, and {wanted} is wanted",
            hint=f"name the index of that build: gpuprov_torch_wheel_index, as in .../whl/{wanted}",
            code="wrong-variant",
        )


def target_of(args: Mapping[str, Any], facts: Mapping[str, Any]) -> Target:
    """Return the kind of host that wheels must fit. Raises RefusedError when it cannot be told."""
    given = str(args.get("managed_python") or args.get("virtualenv_python") or "")
    own = facts.get("python", {}).get("version", {})
    if given:
        version = os.path.basename(given).removeprefix("python")
    else:
        version = f"{own.get('major', '')}.{own.get('minor', '')}"
    if not version.replace(".", "", 1).isdigit() or "." not in version:
        raise RefusedError(
            f"cannot tell which Python version {given or 'this host'} is, so no wheels can be chosen for it",
            hint="give virtualenv_python a name with its version, such as python3.12, or use source: host",
            code="python-unknown",
        )
    glibc = str(facts.get("gpuprov", {}).get("glibc") or "")
    return Target(version, str(facts.get("architecture") or os.uname().machine), glibc)


def has_gpu(facts: Mapping[str, Any]) -> bool:
    """Say whether the host has NVIDIA GPUs."""
    return bool(facts.get("gpuprov", {}).get("gpus"))


def cuda_without_gpu(names: Sequence[str], cuda: Sequence[str], target: Target, asked: str) -> RefusedError:
    """Return the refusal of *names* that need *cuda* packages; *asked*: an index that had no CPU build either."""
    some = ", ".join(cuda[:3]) + (", ..." if len(cuda) > 3 else "")
    also = f"; {asked} offered no CPU build for {target}" if asked else ""
    return RefusedError(
        f"{', '.join(names)} needs CUDA packages ({some}), and the host has no NVIDIA GPU{also}",
        hint="name an index or folder with CPU builds: gpuprov_torch_index or gpuprov_torch_find_links",
        code="cuda-without-gpu",
    )


def names_of(args: Mapping[str, Any]) -> list[str]:
    """Return the requirements of a task, checked. Raises RefusedError for what only a host could know."""
    if args.get("requirements") or args.get("editable"):
        raise RefusedError(
            "a pip task with source: controller takes names, not a requirements file or folder of the host",
            hint="list the packages under name, or use source: host",
            code="wheels-need-names",
        )
    version = args.get("version")
    names = requirement_file.names_of(list(args.get("name") or []), None if version is None else str(version))
    for name in names:
        try:
            requirement.parse(name)
        except ValueError as error:
            hint = 'as in "torch==2.13.0"; paths and URLs need source: host'
            raise RefusedError(f"not a package: {error}", hint=hint, code="bad-requirement") from None
    return names
