"""Survey: which kernel runs, which one boots next, and whether a module could be built for them."""

from __future__ import annotations

import os

from gpuprov.agent import survey_grub
from gpuprov.agent.survey_host import Host, Untold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: How kernels are called below /boot.
_IMAGES = ("vmlinuz-", "vmlinux-", "Image-", "kernel-")
#: Links of Debian's and Ubuntu's to the newest kernel, for boot loaders that know nothing of versions.
_LINKS = ("/vmlinuz", "/boot/vmlinuz")


def kernel(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - one signature for all parts
    """Return {"kernel": {"running", "next", "headers"}}."""
    running = host.text("/proc/sys/kernel/osrelease").strip()
    if not running:
        raise Untold("/proc is not mounted")
    try:
        coming = _next(host, running)
    except Untold as error:
        host.untold["kernel.next"] = str(error)
        coming = None
    releases = sorted({running, *installed(host), *([coming] if coming else [])})
    return {"kernel": {"running": running, "next": coming, "headers": {r: _headers(host, r) for r in releases}}}


def installed(host: Host) -> list[str]:
    """Return the releases of the kernels that the host has, bootable or with modules."""
    images = [name for name in host.names("/boot") if name.startswith(_IMAGES)]
    modules = [name for name in host.names("/lib/modules") if host.exists("/lib/modules/%s/kernel" % name)]
    return sorted({*modules, *(name.split("-", 1)[1] for name in images if not _is_spare(name))})


def _is_spare(name: str) -> bool:
    return "-rescue" in name or name.endswith((".old", ".bak", ".hmac"))


def _headers(host: Host, release: str) -> bool:
    """Say whether headers are there, complete and configured for exactly this kernel."""
    folder = "/lib/modules/%s/build" % release
    return host.exists(folder + "/Makefile") and host.exists(folder + "/include/generated/autoconf.h")


def _next(host: Host, running: str) -> str:
    """Return the release that boots next. Raises Untold."""
    if host.text("/sys/kernel/kexec_loaded").strip() == "1":
        raise Untold("a kernel is loaded for kexec, which may boot instead of the boot loader's")
    images = [name.split("-", 1)[1] for name in host.names("/boot") if name.startswith(_IMAGES) and not _is_spare(name)]
    image = survey_grub.default_image(host)
    if image is not None:
        release = _release_of(host, image)
        if release not in images:
            raise Untold("GRUB's default entry starts %s, which is not in /boot" % image)
        return release
    for link in _LINKS:
        if host.link(link) is not None and host.exists(link):
            return _release_of(host, link)
    if images == [running]:
        return running
    if not images:
        raise Untold("no kernel is in /boot: this host's boot loader or its image has it")
    raise Untold("no configuration of GRUB is in /boot, and it has the kernels %s" % ", ".join(images))


def _release_of(host: Host, image: str) -> str:
    """Return "6.1.0-18-amd64" for "/boot/vmlinuz-6.1.0-18-amd64", or for a link to it. Raises Untold."""
    path = "/boot/" + os.path.basename(image) if not image.startswith("/boot/") else image
    for name in (host.real(image), host.real(path)):
        base = os.path.basename(name)
        if base.startswith(_IMAGES):
            return base.split("-", 1)[1]
    raise Untold("%s does not say which kernel it is" % image)
