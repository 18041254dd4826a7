"""Survey: what kind of machine this is: virtual, a container, WSL, a Jetson, an image, DGX OS."""

from __future__ import annotations

import re

from gpuprov.agent.facts import os_release
from gpuprov.agent.survey_host import Host, Untold, known
from gpuprov.agent.survey_pci import PCI, gpus, is_vgpu

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DMI = "/sys/class/dmi/id/"
#: What the DMI calls a virtual machine.
_MACHINES = (
    ("KVM", "kvm"),
    ("QEMU", "kvm"),
    ("VMware", "vmware"),
    ("VirtualBox", "virtualbox"),
    ("Amazon EC2", "kvm"),
    ("Google Compute Engine", "kvm"),
    ("OpenStack", "kvm"),
    ("Xen", "xen"),
    ("Microsoft Corporation Virtual Machine", "hyperv"),
    ("Nutanix", "kvm"),
)
#: ID or VARIANT_ID of systems whose root file system is an image.
_IMAGES = ("bottlerocket", "talos", "flatcar", "cos", "ubuntu-core", "sle-micro", "sl-micro", "opensuse-microos")
_TRANSACTIONAL = "/usr/sbin/transactional-update"


def virtualization(host: Host, found: dict[str, Any]) -> dict[str, Any]:
    """Return {"virtualization": {"kind", "container", "wsl", "vgpu_guest", "jetson", "image_based", "dgx_os"}}."""
    answer: dict[str, Any] = {
        "kind": _machine(host),
        "wsl": _wsl(host),
        "jetson": _jetson(host),
        "image_based": _image(host),
        "dgx_os": _dgx_os(host),
    }
    for key, look in (("container", lambda: _container(host)), ("vgpu_guest", lambda: _vgpu_guest(host, found))):
        try:
            answer[key] = look()
        except Untold as error:
            host.untold["virtualization." + key] = str(error)
    return {"virtualization": answer}


def _machine(host: Host) -> str | None:
    names = ("sys_vendor", "product_name", "board_vendor", "bios_vendor")
    described = " ".join(host.text(_DMI + name).strip() for name in names)
    for text, kind in _MACHINES:
        if text in described and not ("Amazon EC2" in text and ".metal" in described):
            return kind
    xen = host.text("/sys/hypervisor/type").strip()
    if xen:
        return xen
    return "other" if re.search(r"^flags\s*:.*\bhypervisor\b", host.text("/proc/cpuinfo"), re.MULTILINE) else None


def _container(host: Host) -> str | None:
    """Return in what container this is: docker, podman, systemd-nspawn, lxc ...; None in none."""
    if host.exists("/.dockerenv"):
        return "docker"
    if host.exists("/run/.containerenv"):
        return "podman"
    named = host.text("/run/systemd/container").strip()
    if not named:
        words = host.text("/proc/1/environ").split("\0")
        named = next((word[len("container=") :] for word in words if word.startswith("container=")), "")
    return named or None


def _wsl(host: Host) -> bool:
    return "microsoft" in host.text("/proc/sys/kernel/osrelease").lower() or host.exists("/dev/dxg")


def _jetson(host: Host) -> bool:
    return host.exists("/etc/nv_tegra_release") or "nvidia,tegra" in host.text("/proc/device-tree/compatible")


def _image(host: Host) -> str | None:
    """Return what makes the system an image that packages cannot change for long; None for an ordinary one."""
    release = os_release(host.text("/etc/os-release") or host.text("/usr/lib/os-release"))
    if host.exists("/run/ostree-booted"):
        return "ostree"
    name = next((word for word in (release.get("ID"), release.get("VARIANT_ID")) if word in _IMAGES), None)
    if name:
        return name
    root = next((line.split() for line in host.text("/proc/self/mounts").splitlines() if " / " in line), [])
    read_only = len(root) > 3 and "ro" in root[3].split(",")
    return "transactional-update" if read_only and host.exists(_TRANSACTIONAL) else None


def _dgx_os(host: Host) -> str | None:
    """Return the version of DGX OS; None on another system."""
    if not host.exists("/etc/dgx-release"):
        return None
    release = os_release(host.text("/etc/dgx-release"))
    return release.get("DGX_OTA_VERSION") or release.get("DGX_SWBUILD_VERSION") or "unknown version"


def _vgpu_guest(host: Host, found: dict[str, Any]) -> bool:
    """Say whether a GPU is a virtual one, that needs NVIDIA's guest driver instead of the ordinary one."""
    known(found, "pci")
    return any(is_vgpu(host.read("%s/%s/config" % (PCI, gpu["address"]), 256) or b"") for gpu in gpus(found))
