"""What the packages of a stack are called, and their versions in the package manager's spelling. Pure.

Names and forms: block `packages` of compat.yaml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuprov.stack.candidates import cuda_major
from gpuprov.stack.model import Driver, Package, Part, Repository
from gpuprov.stack.versions import major, older, series

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprov.stack.draft import Draft
    from gpuprov.stack.model import HostFacts
    from gpuprov.stack.tables import Tables

#: Branches from here on have no number in their packages' names (Ubuntu), and fabric manager's from 580 on.
_UNSUFFIXED, _FM_UNSUFFIXED = 590, 580
_ARCH = {"x86_64": "x86_64", "aarch64": "sbsa"}


def family(host: HostFacts, tables: Tables) -> str:
    """Return "apt" or "dnf" for the host's system; "" for one that is neither, or not known."""
    return str((tables.system(host.os_id, host.os_version) or {}).get("family") or "")


def repository(draft: Draft, host: HostFacts, tables: Tables) -> Repository | None:
    """Return where packages come from; None where no system is given or nothing is known of it."""
    kind = family(host, tables)
    if not kind or not draft.repository:
        return None
    if draft.kind == "distribution":
        row = tables.distribution(host.os_id, host.os_version) or {}
        return Repository("distribution", "distribution", kind, components=tuple(row.get("components", ())))
    repos, keys = tables.blocks["packages"]["repos"], tables.blocks["repository_keys"]["nvidia"]
    base = str(repos["base"]).replace("{repo}", draft.repository)
    base = base.replace("{x86_64|sbsa}", _ARCH.get(host.arch or "x86_64", "x86_64"))
    key: Mapping[str, Any] = keys.get(draft.repository) or {}
    key_url = base + key["file"] if key.get("file") else ""
    return Repository(draft.repository, "nvidia", kind, base, key_url, str(key.get("fingerprint") or ""))


def driver(draft: Draft, host: HostFacts, tables: Tables) -> Driver:
    """Return the driver with all its packages: compute only, without a desktop's."""
    kind = family(host, tables)
    own = Driver(draft.driver, draft.branch, draft.flavour)
    if not kind or (draft.kept and not (host.driver_by == "package" and host.driver_origin == draft.kind)):
        return own  # kept as it is, however it came: its packages are not ours to name
    if draft.kind == "distribution":
        return _of_distribution(draft, host, tables)
    if kind == "dnf":
        return _dnf(draft, host)
    return _apt_debian(draft) if host.os_id == "debian" else _apt_ubuntu(draft)


def _apt_ubuntu(draft: Draft) -> Driver:
    open_modules, branch = draft.flavour == "open", draft.branch
    exact = draft.driver + "-*"
    tail = f"-{branch}" if branch < _UNSUFFIXED else ""
    own, other = ("-open", "") if open_modules else ("", "-open")
    names = [
        f"libnvidia-compute{tail}",
        f"nvidia-utils{tail}",
        f"nvidia-dkms{tail}{own}",
        f"nvidia-kernel-common{tail}",
    ]
    packages = [Package(f"nvidia-driver-pinning-{branch}"), *(Package(name, exact) for name in names)]
    packages.append(Package("nvidia-persistenced", exact))
    return _driver(draft, packages, (f"nvidia-dkms{tail}{other}",))


def _apt_debian(draft: Draft) -> Driver:
    exact = draft.driver + "-*"
    own, other = ("nvidia-kernel-open-dkms", "nvidia-kernel-dkms")
    if draft.flavour != "open":
        own, other = other, own
    names = ["nvidia-driver-cuda", own, "nvidia-persistenced"]
    packages = [Package(f"nvidia-driver-pinning-{draft.branch}"), *(Package(name, exact) for name in names)]
    return _driver(draft, packages, (other,))


def _dnf(draft: Draft, host: HostFacts) -> Driver:
    exact = draft.driver + "-*"
    own, other = ("kmod-nvidia-open-dkms", "kmod-nvidia-latest-dkms")
    if draft.flavour != "open":
        own, other = other, own
    packages = [Package(name, exact) for name in ("nvidia-driver-cuda", own, "nvidia-persistenced")]
    modular = (host.os_version or "").split(".")[0] in ("8", "9")
    stream = f"nvidia-driver:{draft.branch}-{'open' if draft.flavour == 'open' else 'dkms'}" if modular else ""
    return _driver(draft, packages, (other,), stream)


def _of_distribution(draft: Draft, host: HostFacts, tables: Tables) -> Driver:
    if host.os_id == "ubuntu":
        tail = f"{draft.branch}-server{'-open' if draft.flavour == 'open' else ''}"
        names = [f"nvidia-headless-no-dkms-{tail}", f"linux-modules-nvidia-{tail}-generic"]
        names += [f"nvidia-utils-{draft.branch}-server", f"libnvidia-compute-{draft.branch}-server"]
        return _driver(draft, [Package(name, draft.driver + "-*") for name in names], ())
    known = tables.blocks["distribution_drivers"]["debian_packages"]
    packages = [Package(name, draft.driver + "-*") for name in known[draft.flavour]]
    other = known["proprietary" if draft.flavour == "open" else "open"]
    packages += [Package(name) for name in known["beside"]]
    return _driver(draft, packages, tuple(name for name in other if "kernel" in name))


def _driver(draft: Draft, packages: list[Package], conflicts: tuple[str, ...], stream: str = "") -> Driver:
    pin = tuple(p for p in packages if p.version)
    return Driver(draft.driver, draft.branch, draft.flavour, tuple(packages), pin, conflicts, stream)


def toolkit(draft: Draft, host: HostFacts, tables: Tables) -> Part:
    """Return the toolkit without what could bring a driver."""
    kind = family(host, tables)
    if draft.kind == "distribution":
        carried = (tables.distribution(host.os_id, host.os_version) or {}).get("toolkit") or {}
        return Part(draft.cuda, (Package(carried["package"], carried["version"]),) if carried else ())
    name = "cuda-toolkit-" + series(draft.cuda).replace(".", "-")
    return Part(draft.cuda, (Package(name, draft.cuda + "-*"),) if kind else ())


def cudnn(draft: Draft, host: HostFacts, tables: Tables) -> Part:
    """Return cuDNN 9's library, headers and development files, all at one version."""
    cuda = cuda_major(draft, tables)
    names = [f"libcudnn9-cuda-{cuda}", f"libcudnn9-dev-cuda-{cuda}", f"libcudnn9-headers-cuda-{cuda}"]
    if family(host, tables) == "dnf":
        names[1] = f"libcudnn9-devel-cuda-{cuda}"
    pattern = draft.cudnn + ("-*" if draft.cudnn.count(".") == 3 else ".*")
    return Part(draft.cudnn, tuple(Package(name, pattern) for name in names) if family(host, tables) else ())


def nccl(draft: Draft, host: HostFacts, tables: Tables) -> Part:
    """Return NCCL for this CUDA's major version: without a suffix, the build for the newest CUDA would come.

    There is not a build for every minor version, and one for another of the same major runs.
    """
    names = ["libnccl2", "libnccl-dev"] if family(host, tables) == "apt" else ["libnccl", "libnccl-devel"]
    pattern = f"{draft.nccl}-1+cuda{cuda_major(draft, tables)}.*"
    return Part(draft.nccl, tuple(Package(name, pattern) for name in names) if family(host, tables) else ())


def fabricmanager(draft: Draft, host: HostFacts, tables: Tables) -> Part:
    """Return fabric manager at exactly the driver's version, and what NVLink 5 needs beside it."""
    kind, branch = family(host, tables), draft.branch
    exact = draft.fabricmanager + "-*"
    if not kind:
        return Part(draft.fabricmanager, (), ("nvidia-fabricmanager",))
    if kind == "apt":
        tail = "" if branch >= _FM_UNSUFFIXED else f"-{branch}"
        names = [f"nvidia-fabricmanager{tail}", f"libnvidia-nscq{tail}"]
    else:
        names = ["nvidia-fabricmanager" if branch >= _FM_UNSUFFIXED else "nvidia-fabric-manager", "libnvidia-nscq"]
    packages = [Package(name, exact) for name in names]
    if host.nvlink5:
        umad = "libibumad3" if kind == "apt" else "libibumad"
        packages += [Package("libnvsdm", exact), *(Package(n) for n in ("nvlsm", "infiniband-diags", umad))]
    return Part(draft.fabricmanager, tuple(packages), ("nvidia-fabricmanager",))


def dcgm(draft: Draft, host: HostFacts, tables: Tables) -> Part:
    """Return DCGM 4 for the CUDA that the driver reports; that of CUDA 12 where GPUs are older than Turing."""
    version, row = draft.dcgm, tables.branch(draft.branch or major(host.driver or "0")) or {}
    old = any(gpu.cc is not None and older(gpu.cc, "7.5") for gpu in host.gpus)
    suffix = f"cuda{12 if old else min(13, major(str(row.get('cuda_max', 13))))}"
    pattern = f"1:{version}.*" if version.count(".") == 0 else f"1:{version}-*"
    names = [f"datacenter-gpu-manager-4-{suffix}", "datacenter-gpu-manager-4-core"]
    found = tuple(Package(name, pattern) for name in names)
    return Part(version, found if family(host, tables) else (), ("nvidia-dcgm",))


def container_toolkit(draft: Draft, host: HostFacts, tables: Tables) -> Part:
    """Return the four packages of the container toolkit, all at one version."""
    names = tables.blocks["packages"]["container_toolkit"]["pin_together"]
    found = tuple(Package(name, draft.container_toolkit + "-*") for name in names)
    return Part(draft.container_toolkit, found if family(host, tables) else ())
