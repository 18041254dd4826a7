"""Survey: whether only signed kernel modules load, and whether those that DKMS signs would be among them."""

from __future__ import annotations

import re

from gpuprov.agent.survey_host import Host, Untold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_VARIABLES = "/sys/firmware/efi/efivars"
_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
_SHIM = "605dab50-e046-4300-abb6-3dd810dd8b23"
#: Where DKMS has its key: Ubuntu's place, and that of all others.
_KEYS = ("/var/lib/shim-signed/mok/MOK.der", "/var/lib/dkms/mok.pub")
_CONFIGURED = re.compile(r"^\s*mok_certificate\s*=\s*[\"']?([^\"'\s#]+)", re.MULTILINE)


def secure_boot(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - one signature for all parts
    """Return {"secure_boot": whether firmware and shim check what boots; None when they do not tell}."""
    return {"secure_boot": _secure_boot(host)}


def _secure_boot(host: Host) -> bool | None:
    if not _has_variables(host):
        return _without_variables(host, "secure_boot")
    value = host.read("%s/SecureBoot-%s" % (_VARIABLES, _GLOBAL))
    if value is None:
        return False  # firmware without Secure Boot
    if len(value) < 5:
        host.untold["secure_boot"] = "the firmware's variable SecureBoot is damaged"
        return None
    relaxed = host.read("%s/MokSBStateRT-%s" % (_VARIABLES, _SHIM))  # mokutil --disable-validation
    return value[-1] == 1 and not (relaxed and relaxed[-1] == 1)


def module_signing(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Return {"module_signing": {"enforced", "lockdown"}}: what the running kernel demands."""
    enforced = host.text("/sys/module/module/parameters/sig_enforce").strip()
    lockdown = re.search(r"\[(\w+)\]", host.text("/sys/kernel/security/lockdown"))
    signing: dict[str, Any] = {}
    if enforced:
        signing["enforced"] = enforced == "Y"
    if lockdown:
        signing["lockdown"] = lockdown.group(1)
    return {"module_signing": signing}


def mok_enrolled(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Return {"mok_enrolled": whether the key that DKMS signs with is enrolled; None when that cannot be told}."""
    return {"mok_enrolled": _mok_enrolled(host)}


def _mok_enrolled(host: Host) -> bool | None:
    if not _has_variables(host):
        return _without_variables(host, "mok_enrolled")
    try:
        keys = [key for key in (host.read(path) for path in _certificates(host)) if key]
        lists = [name for name in host.names(_VARIABLES) if name.startswith("MokListRT") and name.endswith(_SHIM)]
        enrolled = b"".join(host.read("%s/%s" % (_VARIABLES, name)) or b"" for name in lists)
    except Untold as error:
        host.untold["mok_enrolled"] = str(error)
        return None
    return any(key in enrolled for key in keys)


def _certificates(host: Host) -> list[str]:
    folder = "/etc/dkms/framework.conf.d/"
    texts = [host.text("/etc/dkms/framework.conf")]
    texts += [host.text(folder + name) for name in host.names(folder) if name.endswith(".conf")]
    configured = [path for text in texts for path in _CONFIGURED.findall(text)]
    return configured[-1:] or list(_KEYS)


def _has_variables(host: Host) -> bool:
    return bool(host.names(_VARIABLES))


def _without_variables(host: Host, key: str) -> bool | None:
    """Return False for a machine that was not booted by EFI; None when that cannot be told."""
    if not host.exists("/sys/firmware/efi") and (
        host.exists("/sys/firmware/memmap") or host.exists("/sys/firmware/devicetree")
    ):
        return False
    why = "the variables of the EFI are not mounted" if host.exists("/sys/firmware/efi") else "/sys/firmware is hidden"
    host.untold[key] = why
    return None
