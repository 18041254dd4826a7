"""What Debian's archive gives today, by hand: the ground that the roles stand on. Long; `make prove-stack`.

The steps are an admin's own, without gpuprov. When one fails, the archive has changed, and the
story of the roles (and their tables) has to be looked at.
"""

from __future__ import annotations

import pytest

from tests.booted.host import Host, differences
from tests.support.lab import NEEDS_BOOTED

pytestmark = [*NEEDS_BOOTED, pytest.mark.slow, pytest.mark.stack]

APT = "DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends"
KERNEL = "linux-image-cloud-amd64 linux-headers-cloud-amd64"
DRIVER = "nvidia-kernel-dkms nvidia-smi libcuda1 libnvidia-ml1 nvidia-persistenced"
NO_GPU = "Failed to query NVIDIA devices"
PROGRAM = r"""
cat >/tmp/count.cu <<'END'
#include <cstdio>
int main() { int n = -1; cudaError_t e = cudaGetDeviceCount(&n); printf("%s\n", cudaGetErrorString(e)); }
END
nvcc -o /tmp/count /tmp/count.cu && /tmp/count
"""


def test_the_story_by_hand(booted: Host) -> None:
    host = booted
    host.transcript.chapter("A Debian host with its non-free components")
    host.do("sed -i 's/^Components: main$/Components: main contrib non-free non-free-firmware/'"
            " /etc/apt/sources.list.d/debian.sources && apt-get -q update")  # fmt: skip
    packages, files = host.packages(), host.files()

    host.transcript.chapter("The open flavour cannot be had, which a simulation finds")
    open_flavour = host.try_(f"{APT} -s install nvidia-open-kernel-dkms nvidia-smi libcuda1 {KERNEL}")
    assert open_flavour.returncode == 100
    assert "nvidia-open-kernel-dkms : Depends: firmware-nvidia-gsp" in open_flavour.stdout
    assert differences(packages, host.packages()) == []

    host.transcript.chapter("The proprietary driver, its kernel and its modules")
    host.do(f"{APT} install {KERNEL}")
    host.do(f"{APT} install {DRIVER}")
    kernel = host.kernel_to_boot()
    module = host.module(kernel, "nvidia", "nvidia-current")
    installed = host.packages()
    version = installed["nvidia-kernel-dkms:amd64"].split()[1].split("-")[0]
    assert module == {"name": "nvidia-current", "version": version, "license": "NVIDIA"}
    assert f"nvidia-current/{version}, {kernel}, x86_64: installed" in host.do("dkms status")
    assert "blacklist nouveau" in host.initramfs(kernel)
    host.do(f"apt-mark hold {DRIVER}")
    assert not [name for name in installed if name.startswith("xserver-xorg")]

    host.transcript.chapter("No GPU, and no module for the machine's kernel: neither passes for a success")
    assert host.try_("nvidia-smi").returncode == 9
    assert "not found in directory" in host.try_("modprobe nvidia").stderr
    assert host.try_("systemctl restart nvidia-persistenced").returncode == 1
    assert NO_GPU in host.do("journalctl --no-pager -n 20 -u nvidia-persistenced")

    host.transcript.chapter("The CUDA toolkit")
    host.do(f"{APT} install nvidia-cuda-toolkit g++")
    assert "release 11.8" in host.do("nvcc --version")
    assert host.do(PROGRAM) == "no CUDA-capable device is detected\n"

    host.transcript.chapter("A reboot")
    before = host.packages()
    host.reboot()
    assert differences(before, host.packages()) == []
    assert host.module(kernel, "nvidia-current") == module
    assert host.ask("apt-mark showhold").split() == sorted(DRIVER.split())

    host.transcript.chapter("Removal of the recorded difference")
    host.do(f"apt-mark unhold {DRIVER}")
    added = sorted(name for name in host.packages().keys() - packages.keys())
    host.do(f"{APT} purge {' '.join(added)}")
    assert differences(packages, host.packages()) == []
    left = sorted(host.files() - files)
    host.transcript.note(f"left: {', '.join(left)}")
    assert left == ["/var/lib/dkms", "/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub"]
