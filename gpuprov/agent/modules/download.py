"""Fetching a URL into a file, with the host's proxies and failures as one sentence."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import ssl
import time
import urllib.error
import urllib.request

from gpuprov.agent.modules.base import ModuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.modules.base import Call

_PIECE_BYTES = 1 << 18
#: How often a long download says how far it is.
_NEWS_S = 10.0


def fetch(call: Call, url: str, path: str, wanted: tuple[str, str] | None) -> tuple[int, str]:
    """Write what *url* answers to the new file *path*; return the answer's code and words.

    wanted is (algorithm, hex) that it must have. Raises ModuleError, OSError of the file.
    """
    digest = hashlib.new(wanted[0]) if wanted else None
    with open_url(call, url) as answer:
        length = answer.headers.get("Content-Length")
        size = _save(call, answer, path, digest, int(length) if length and length.isdigit() else None)
        if length and length.isdigit() and size != int(length):
            message = "%s ended early: %d of %s bytes" % (url, size, length)
            raise ModuleError(message, "try again", code="download-incomplete")
        code = getattr(answer, "status", None) or 200
        said = "%s (%d bytes)" % (getattr(answer, "reason", None) or "OK", size)
    if wanted and digest is not None and digest.hexdigest() != wanted[1]:
        message = "%s has the %s %s, not %s" % (url, wanted[0], digest.hexdigest(), wanted[1])
        raise ModuleError(message, "the file or the checksum is of another version", code="checksum-mismatch")
    return code, said


def _save(call: Call, answer: Any, path: str, digest: Any, length: int | None) -> int:
    size, told = 0, time.monotonic()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as f:
        while True:
            try:
                piece = answer.read(_PIECE_BYTES)
            except (http.client.IncompleteRead, OSError) as error:
                raise ModuleError("the connection broke after %d bytes: %s" % (size, error), "try again") from None
            if not piece:
                return size
            f.write(piece)
            size += len(piece)
            if digest is not None:
                digest.update(piece)
            if time.monotonic() - told > _NEWS_S:
                told = time.monotonic()
                of = " of %d" % (length >> 20) if length else ""
                call.output("stdout", "%d%s MiB" % (size >> 20, of))


def open_url(call: Call, url: str) -> Any:
    """Return the open answer. Raises ModuleError with the reason."""
    args = call.args
    try:
        request = urllib.request.Request(url, headers={"User-Agent": args["http_agent"]})  # noqa: S310 - file: is meant
    except ValueError as error:
        raise ModuleError("url %r: %s" % (url, error), code="url") from None
    unredirected = {name.lower() for name in args.get("unredirected_headers") or []}
    for name, value in (args.get("headers") or {}).items():
        add = request.add_unredirected_header if name.lower() in unredirected else request.add_header
        add(name, str(value))
    if args.get("url_username"):
        pair = "%s:%s" % (args["url_username"], args.get("url_password") or "")
        # not sent on to where a redirection leads
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    try:
        return _opener(call, request.host or "").open(request, timeout=args["timeout"])
    except urllib.error.HTTPError as error:
        message = "%s: %d %s" % (url, error.code, error.reason)
        hint = {401: "url_username and url_password are missing or wrong", 404: "check the URL"}.get(error.code, "")
        raise ModuleError(message, hint, code="http-%d" % error.code, status_code=error.code) from None
    except (http.client.HTTPException, OSError) as error:
        raise _unreachable(url, error) from None


def _unreachable(url: str, error: Exception) -> ModuleError:
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        hint = "install ca-certificates or the site's own authority; validate_certs: false checks nothing"
        return ModuleError("%s: its certificate is not accepted: %s" % (url, reason.verify_message), hint, code="tls")
    if isinstance(reason, TimeoutError) or "timed out" in str(reason):
        return ModuleError("%s did not answer in time" % url, "raise timeout, or check the network", code="timeout")
    return ModuleError("%s cannot be fetched: %s" % (url, reason), "check the URL, DNS and proxy", code="network")


def _opener(call: Call, host: str) -> urllib.request.OpenerDirector:
    context = ssl.create_default_context()
    if not call.args["validate_certs"]:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if call.args.get("client_cert"):
        context.load_cert_chain(call.args["client_cert"], call.args.get("client_key"))
    proxies = _proxies({**os.environ, **call.env}, host) if call.args["use_proxy"] else {}
    return urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context)
    )


def _proxies(env: dict[str, str], host: str) -> dict[str, str]:
    """Return {"http": URL, ...} for *host* from http_proxy and the like; the task's environment counts, too."""
    found = {name.lower(): value for name, value in sorted(env.items()) if name.lower().endswith("_proxy") and value}
    no_proxy = {"no": found.pop("no_proxy", "")}
    if urllib.request.proxy_bypass_environment(host, no_proxy):  # type: ignore[attr-defined]
        return {}
    return {name[: -len("_proxy")]: value for name, value in found.items()}
