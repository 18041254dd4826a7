"""Survey: the proxies that this host's programs are told to use. Logins in their addresses are masked."""

from __future__ import annotations

import os
import re

from gpuprov.agent.survey_packages import apt_settings, family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.survey_host import Host

_NAMES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?(\w+)=[\"']?(.*?)[\"']?\s*$", re.MULTILINE)
_APT = re.compile(r"Acquire::(https?|ftp)::(Proxy(?:::.+|-Auto-Detect)?|ProxyAutoDetect)", re.IGNORECASE)
MASK = "********"


def proxy(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - one signature for all parts
    """Return {"proxy": {"environment", "etc_environment", "apt" or "dnf" or "zypper"}}, each name -> value.

    What names no proxy is left out: {} is a host without any.
    """
    told = {part: {k: masked(v) for k, v in values.items()} for part, values in settings(host).items()}
    return {"proxy": {part: values for part, values in told.items() if values}}


def settings(host: Host) -> dict[str, dict[str, str]]:
    """Return all of them with their logins: for those who connect. Raises Untold."""
    assigned = dict(_ASSIGNMENT.findall(host.text("/etc/environment")))
    answer = {"environment": {} if host.root else _of(os.environ), "etc_environment": _of(assigned)}
    kind = family(host)
    if kind == "apt":
        answer["apt"] = {name: value for name, value in apt_settings(host).items() if value and _APT.fullmatch(name)}
    elif kind == "dnf":
        value = re.search(r"^\s*proxy\s*=\s*(\S+)", host.text("/etc/dnf/dnf.conf"), re.MULTILINE)
        answer["dnf"] = {"proxy": value.group(1)} if value else {}
    else:
        assigned = dict(_ASSIGNMENT.findall(host.text("/etc/sysconfig/proxy")))
        answer["zypper"] = _of(assigned) if assigned.get("PROXY_ENABLED") == "yes" else {}
    return answer


def masked(address: str) -> str:
    """Return an address without its login and its query, which may be secrets."""
    return re.sub(r"(?<=//)[^/@\s]+(?=@)", MASK, address).partition("?")[0]


def _of(variables: Any) -> dict[str, str]:
    """Return the proxies among *variables* with lower-case names; the lower-case one wins where both are set."""
    answer = {}
    for name in _NAMES:
        value = variables.get(name) or variables.get(name.upper())
        if value:
            answer[name] = value
    return answer
