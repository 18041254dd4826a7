"""Survey: ask one package source whether it is there. Runs in a child of the agent; imports what is slow."""

from __future__ import annotations

import socket
import ssl
import urllib.error
import urllib.request

from gpuprov.agent.survey_proxy import masked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.survey_host import Host

_FILES = ("file", "copy")
_WEB = ("http", "https")


def ask(host: Host, source: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Return {"reachable": True | False | None, "error": a clause or None}. Blocking."""
    scheme = source["ask"][0].partition(":")[0].lower()
    if scheme in _FILES:
        return _file(host, source["ask"])
    if scheme not in _WEB:
        return {"reachable": None, "error": "%s: is not asked" % scheme}
    error = ""
    for url in source["ask"]:
        status, error = _web(host, url, source, timeout_s)
        if not error:
            return {"reachable": True, "error": None}
        if status in (401, 403) and not source["via"]:
            return {"reachable": None, "error": error + ": it wants a login, or another address than this host's"}
        if status != 404:
            break
    return {
        "reachable": False,
        "error": error + (" through the proxy %s" % masked(source["via"]) if source["via"] else ""),
    }


def _file(host: Host, urls: list[str]) -> dict[str, Any]:
    paths = ["/" + url.partition(":")[2].lstrip("/") for url in urls]
    if any(host.exists(path) for path in paths):
        return {"reachable": True, "error": None}
    return {"reachable": False, "error": "there is no %s" % paths[0]}


def _web(host: Host, url: str, source: dict[str, Any], timeout_s: float) -> tuple[int, str]:
    """Return the HTTP status (0 without an answer), and what is wrong ("" when nothing is)."""
    via = source["via"] if "://" in source["via"] or not source["via"] else "http://" + source["via"]
    try:
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({"http": via, "https": via} if via else {}),
            urllib.request.HTTPSHandler(context=_context(host, source["options"])),
        )
        with opener.open(urllib.request.Request(url, method="HEAD"), timeout=timeout_s) as answer:  # noqa: S310
            return int(answer.status), ""
    except urllib.error.HTTPError as error:
        with error:
            return _judged(error.code, url)
    except urllib.error.URLError as error:
        return 0, _why(error.reason, timeout_s)
    except (OSError, ValueError) as error:
        return 0, _why(error, timeout_s)


def _judged(status: int, url: str) -> tuple[int, str]:
    if status in (405, 501):  # it takes no HEAD, so it is there
        return status, ""
    if status == 407:
        return status, "the proxy wants a login (407)"
    return status, "HTTP %d for %s" % (status, masked(url))


def _context(host: Host, options: dict[str, str]) -> ssl.SSLContext:
    """Return what a repository demands of TLS: its own authorities, and the certificate of a subscription."""
    authorities = options.get("sslcacert")
    context = ssl.create_default_context(cafile=host.at(authorities) if authorities else None)
    if options.get("sslverify", "1").lower() in ("0", "no", "false"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.get("sslclientcert"):
        key = options.get("sslclientkey")
        context.load_cert_chain(host.at(options["sslclientcert"]), host.at(key) if key else None)
    return context


def _why(reason: Any, timeout_s: float) -> str:
    if isinstance(reason, socket.gaierror):
        return "its name cannot be looked up"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return "its certificate is not trusted: %s" % reason.verify_message
    if isinstance(reason, socket.timeout):
        return "no answer within %g s" % timeout_s
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror[:1].lower() + reason.strerror[1:]
    return str(reason)
