"""NVIDIA's packages by their real names, versions and dependencies, for repositories made in tests.

Data: (name, dependencies). A dependency that ends with "=" is on exactly the same version. {b} is the
driver's branch, {x} a CUDA version such as 13-0. Sources of names: NVIDIA's driver and CUDA installation
guides (Ubuntu 590 package renames; Debian and RHEL chapters), as collected in docs/packages.md. The packages are
empty, but say of themselves that they take space, as the real ones do; metapackages say that they do not.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.deb_repository import DebRepository
    from tests.support.rpm_repository import RpmRepository

#: Ubuntu, branches up to 580: the branch is in the names.
UBUNTU_SUFFIXED = [
    ("libnvidia-common-{b}", ""),
    ("libnvidia-compute-{b}", "libnvidia-common-{b}="),
    ("nvidia-utils-{b}", "libnvidia-compute-{b}="),
    ("nvidia-kernel-common-{b}", ""),
    ("nvidia-kernel-source-{b}-open", ""),
    ("nvidia-kernel-source-{b}", ""),
    ("nvidia-dkms-{b}-open", "nvidia-kernel-source-{b}-open= nvidia-kernel-common-{b}="),
    ("nvidia-dkms-{b}", "nvidia-kernel-source-{b}= nvidia-kernel-common-{b}="),
    ("nvidia-driver-{b}-open", "libnvidia-compute-{b}= nvidia-utils-{b}= nvidia-dkms-{b}-open="),
    ("nvidia-driver-{b}", "libnvidia-compute-{b}= nvidia-utils-{b}= nvidia-dkms-{b}="),
    ("nvidia-open-{b}", "nvidia-driver-{b}-open="),
    ("cuda-drivers-{b}", "nvidia-driver-{b}="),
]
#: Ubuntu, 590 and later: no branch in the names.
UBUNTU_PLAIN = [
    ("libnvidia-compute", ""),
    ("nvidia-utils", "libnvidia-compute="),
    ("nvidia-kernel-common", ""),
    ("nvidia-dkms-open", "nvidia-kernel-common="),
    ("nvidia-driver-open", "libnvidia-compute= nvidia-utils= nvidia-dkms-open="),
    ("nvidia-open", "nvidia-driver-open="),
]
#: What has no branch in its name and is exactly the driver's version all the same.
LOCKSTEP = [
    ("nvidia-fabricmanager", ""),
    ("libnvidia-nscq", ""),
    ("nvidia-imex", ""),
    ("nvidia-persistenced", ""),
    ("nvidia-modprobe", ""),
]
DEBIAN = [
    ("libcuda1", ""),
    ("nvidia-smi", "libcuda1="),
    ("nvidia-driver-cuda", "libcuda1= nvidia-smi="),
    ("nvidia-kernel-open-dkms", ""),
    ("nvidia-kernel-dkms", ""),
    ("nvidia-open", "nvidia-driver-cuda= nvidia-kernel-open-dkms="),
    ("cuda-drivers", "nvidia-driver-cuda= nvidia-kernel-dkms="),
]
TOOLKIT = [
    ("cuda-cudart-{x}", ""),
    ("cuda-nvcc-{x}", ""),
    ("cuda-libraries-{x}", "cuda-cudart-{x}="),
    ("cuda-compiler-{x}", "cuda-nvcc-{x}="),
    ("cuda-toolkit-{x}", "cuda-compiler-{x}= cuda-libraries-{x}="),
]
CUDNN = [
    ("libcudnn9-cuda-{c}", ""),
    ("libcudnn9-headers-cuda-{c}", ""),
    ("libcudnn9-dev-cuda-{c}", "libcudnn9-cuda-{c}= libcudnn9-headers-cuda-{c}="),
    ("cudnn9-cuda-{c}", "libcudnn9-cuda-{c}="),
]
NCCL = [("libnccl2", ""), ("libnccl-dev", "libnccl2=")]
DCGM = [
    ("datacenter-gpu-manager-4-core", ""),
    ("datacenter-gpu-manager-4-cuda{c}", "datacenter-gpu-manager-4-core="),
]
CONTAINER = [
    ("libnvidia-container1", ""),
    ("libnvidia-container-tools", "libnvidia-container1="),
    ("nvidia-container-toolkit-base", ""),
    ("nvidia-container-toolkit", "nvidia-container-toolkit-base= libnvidia-container-tools="),
]
#: Ubuntu's own archive: server branches, prebuilt modules.
ARCHIVE = [
    ("libnvidia-compute-{b}-server", ""),
    ("nvidia-utils-{b}-server", "libnvidia-compute-{b}-server="),
    ("nvidia-headless-no-dkms-{b}-server-open", "libnvidia-compute-{b}-server="),
    ("linux-modules-nvidia-{b}-server-open-generic", ""),
]
#: RHEL and its kin: the branch is in the version, the flavour in the kernel module's name.
EL = [
    ("nvidia-kmod-common", ""),
    ("nvidia-persistenced", ""),
    ("nvidia-driver-cuda-libs", ""),
    ("nvidia-driver-cuda", "nvidia-driver-cuda-libs= nvidia-persistenced= nvidia-kmod-common="),
    ("kmod-nvidia-open-dkms", "nvidia-kmod-common="),
    ("kmod-nvidia-latest-dkms", "nvidia-kmod-common="),
    ("nvidia-open", "nvidia-driver-cuda= kmod-nvidia-open-dkms="),
    ("cuda-drivers", "nvidia-driver-cuda= kmod-nvidia-latest-dkms="),
    ("nvidia-fabricmanager", ""),
]
_METAPACKAGES = ("nvidia-open", "cuda-drivers", "cuda-toolkit", "cudnn9", "datacenter-gpu-manager-4-cuda")
#: Two flavours of one thing exclude each other.
_CONFLICTS = {"nvidia-dkms-{b}-open": "nvidia-dkms-{b}", "nvidia-kernel-open-dkms": "nvidia-kernel-dkms"}


def add(repo: DebRepository, table: Iterable[tuple[str, str]], version: str, **numbers: str) -> list[str]:
    """Put a table's packages into an apt repository at one version; return their names."""
    names = []
    for template, needs in table:
        name = template.format(**numbers)
        depends = ["%s (= %s)" % (one.rstrip("=").format(**numbers), version) for one in needs.split()]
        fields = {"depends": ", ".join(depends)}
        other = _CONFLICTS.get(template, "").format(**numbers)
        if other:
            fields.update(conflicts=other)
        repo.add(name, version, size_kb=20 if name.startswith(_METAPACKAGES) else 4096, **fields)
        names.append(name)
    return names


def add_pinning(repo: DebRepository, branch: str, version: str) -> None:
    """Put NVIDIA's pinning package of a branch in: a file for preferences.d, and one of its kind at a time."""
    pin = "Package: *nvidia*\nPin: version %s.*\nPin-Priority: 1000\n" % branch
    repo.add(
        "nvidia-driver-pinning-" + branch,
        version,
        size_kb=10,
        files={"/etc/apt/preferences.d/nvidia-driver-pin": pin.encode()},
        provides="nvidia-driver-pinning",
        conflicts="nvidia-driver-pinning",
        replaces="nvidia-driver-pinning",
    )


def add_driver(repo: DebRepository, version: str) -> str:
    """Put a whole driver for Ubuntu in, named as its branch names things; return the packages' version."""
    branch = version.split(".")[0]
    full = version + "-1ubuntu1"
    if int(branch) <= 580:
        add(repo, UBUNTU_SUFFIXED, full, b=branch)
    else:
        add(repo, UBUNTU_PLAIN, full)
    add(repo, LOCKSTEP, version + "-1")
    add_pinning(repo, branch, version + "-1ubuntu1")
    if int(branch) >= 615:
        repo.add("cuda-drivers", full, size_kb=20)  # empty: R615 has no proprietary modules
    return full


def add_cuda(repo: DebRepository) -> None:
    """Put two toolkits, cuDNN, NCCL for two CUDAs, DCGM and the container toolkit in."""
    add(repo, TOOLKIT, "13.0.2-1", x="13-0")
    add(repo, TOOLKIT, "12.8.1-1", x="12-8")
    add(repo, CUDNN, "9.19.0.56-1", c="13")
    add(repo, NCCL, "2.32.3-1+cuda13.0")
    add(repo, NCCL, "2.32.3-1+cuda12.9")
    add(repo, DCGM, "1:4.5.2-1", c="13")
    add(repo, CONTAINER, "1.20.0-1")


def add_archive(repo: DebRepository) -> None:
    """Put Ubuntu's own server driver 580 in, and the stubs that are left of its branch 570."""
    version = "580.95.05-0ubuntu0.24.04.2"
    add(repo, ARCHIVE, version, b="580")
    for template, _ in ARCHIVE:
        old, new = template.format(b="570"), template.format(b="580")
        repo.add(old, version, size_kb=20, depends="%s (= %s)" % (new, version))


def add_el(repo: RpmRepository, version: str) -> list[str]:
    """Put a whole driver for RHEL in, as NVIDIA versions it (epoch 3); return the packages' NEVRAs."""
    nevras = []
    for name, needs in EL:
        requires = ", ".join("%s = 3:%s" % (one.rstrip("="), version) for one in needs.split())
        more = "Conflicts: kmod-nvidia-latest-dkms\n" if name == "kmod-nvidia-open-dkms" else ""
        meta = name.startswith(_METAPACKAGES)
        nevras.append(repo.add(name, "3:%s-1.el9" % version, requires=requires, more=more, size_kb=0 if meta else 80))
    return nevras
