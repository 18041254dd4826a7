"""Secrets by value: found in every spelling, hidden in what is shown, taken out of what lies on disk.

A plan on disk has placeholders. They say which secret was there, so that whoever goes on with the
plan can put it back, and refuses to go on without it: a mask must never end up in a file.
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MASK = "********"
#: Lines of a secret with several (a private key) that are as long as this are hidden one by one.
LEAST_LINE = 8


class SecretsMissing(Exception):
    """A plan on disk names secrets that nobody has given."""


def spellings(secret: str) -> list[str]:
    """Return the ways in which *secret* may show up in text; always the same number, some maybe empty.

    As it is, inside JSON, shell- and URL-quoted, in HTML, and in base64, also of a longer text around it.
    """
    from base64 import b64encode, urlsafe_b64encode
    from shlex import quote
    from urllib.parse import quote as url_quote
    from urllib.parse import quote_plus

    raw = secret.encode("utf-8", "surrogateescape")
    found = [secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]]
    found += [quote(secret)[1:-1] if quote(secret) != secret else "", _in_double_quotes(secret)]
    found += [url_quote(raw, safe=""), url_quote(raw), quote_plus(raw)]
    in_html = secret.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    found += [in_html, in_html.replace('"', "&quot;").replace("'", "&#x27;")]
    for encode in (b64encode, urlsafe_b64encode):
        found.append(encode(raw).decode())
        found += [_inner(encode, raw, before) for before in range(3)]
    return found


def _in_double_quotes(text: str) -> str:
    return "".join("\\" + letter if letter in '"$`\\' else letter for letter in text)


def _inner(encode: Callable[[bytes], bytes], raw: bytes, before: int) -> str:
    """Return the letters that *raw* gives in base64, *before* bytes after a multiple of three."""
    text = encode(bytes(before) + raw).decode()
    start = (0, 2, 3)[before]
    inner = text[start : (before + len(raw)) * 8 // 6]
    return inner if len(inner) >= LEAST_LINE else ""


class Masks:
    """Hides secrets in JSON values: in strings, never in numbers or the structure around them."""

    def __init__(self, secrets: list[str]) -> None:
        found: set[str] = set()
        for secret in secrets:
            found.update(spellings(secret))
            lines = secret.splitlines()
            for line in lines if len(lines) > 1 else ():
                if len(line.strip()) >= LEAST_LINE:
                    found.update(spellings(line.strip()))
        found.discard("")
        self._spellings = sorted(found, key=len, reverse=True)
        #: The same as they stand inside JSON text.
        self._in_json = [json.dumps(text)[1:-1] for text in self._spellings]

    def in_json(self, text: str) -> bool:
        """Say whether JSON *text* may hold a secret; sometimes yes where there is none."""
        return any(spelling in text for spelling in self._in_json)

    def hide(self, value: Any) -> Any:
        """Return *value* with a mask in place of every secret."""
        return _each_text(value, self._text)

    def _text(self, text: str) -> str:
        for spelling in self._spellings:
            if spelling in text:
                text = text.replace(spelling, MASK)
        return text


def without_secrets(plan: dict[str, Any]) -> dict[str, Any]:
    """Return *plan* as it may lie on disk: with placeholders, and with what tells which secret belongs where."""
    rest = {key: value for key, value in plan.items() if key != "secrets"}
    secrets = [secret for secret in plan.get("secrets") or () if secret]
    if not secrets:
        return rest
    token = os.urandom(8).hex()
    places = [
        (spelling, "@%s:%d:%d@" % (token, index, way))
        for index, secret in enumerate(secrets)
        for way, spelling in enumerate(spellings(secret))
        if spelling
    ]
    places.sort(key=lambda place: len(place[0]), reverse=True)

    def put(text: str) -> str:
        for spelling, placeholder in places:
            if spelling in text:
                text = text.replace(spelling, placeholder)
        return text

    fixed: dict[str, Any] = {key: rest[key] for key in ("protocol", "run", "host", "blobs") if key in rest}
    masked: dict[str, Any] = {**_each_text(rest, put), **fixed}
    masked["masked"] = {"token": token, "checks": [_check(token, secret) for secret in secrets]}
    return masked


def with_secrets(plan: dict[str, Any], secrets: list[str]) -> dict[str, Any]:
    """Return a plan from disk with the *secrets* put back, in any order. Raises SecretsMissing."""
    masked = plan.get("masked")
    if masked is None:
        return {**plan, "secrets": secrets}
    token, checks = masked["token"], masked["checks"]
    given = {_check(token, secret): secret for secret in secrets if secret}
    lacking: set[int] = set()

    def put(text: str) -> str:
        first, *parts = text.split("@" + token + ":")
        for part in parts:
            place, _, rest = part.partition("@")
            index, _, way = place.partition(":")
            secret = given.get(checks[int(index)])
            if secret is None:
                lacking.add(int(index))
            first += (spellings(secret)[int(way)] if secret is not None else MASK) + rest
        return first

    whole: dict[str, Any] = _each_text({key: value for key, value in plan.items() if key != "masked"}, put)
    if lacking:
        raise SecretsMissing(
            "the rest of this run needs %d secret%s that %s not given, or not the same as when it was started"
            % (len(lacking), "s" if len(lacking) > 1 else "", "were" if len(lacking) > 1 else "was")
        )
    return {**whole, "secrets": secrets}


def _check(token: str, secret: str) -> str:
    """Return 16 bits that tell secrets of one run apart; they are too few to guess one by."""
    from gpuprov.agent.system import new_sha256

    digest = new_sha256()
    digest.update((token + secret).encode("utf-8", "surrogateescape"))
    return str(digest.hexdigest()[:4])


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key) if isinstance(key, str) else key: _each_text(one, change) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_each_text(one, change) for one in value]
    return value
