"""Requirements as pip writes them: "torch[opt]==2.13.*; python_version < '3.13'".

Names, versions (PEP 440) and conditions (PEP 508), as far as telling "is it installed" needs
them. Pure; standard library only, since it also runs on hosts.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

_NAME = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[([^\]]*)\])?\s*")
_SPECIFIER = re.compile(r"\s*(===|==|~=|!=|<=|>=|<|>)\s*([^\s,;]+)\s*")
_VERSION = re.compile(
    r"""v?(?:(?P<epoch>\d+)!)?(?P<release>\d+(?:\.\d+)*)
    (?:[-_.]?(?P<pre>alpha|a|beta|b|preview|pre|c|rc)[-_.]?(?P<pre_n>\d*))?
    (?:-(?P<post_bare>\d+)|[-_.]?(?P<post>post|rev|r)[-_.]?(?P<post_n>\d*))?
    (?:[-_.]?(?P<dev>dev)[-_.]?(?P<dev_n>\d*))?
    (?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?""",
    re.VERBOSE | re.IGNORECASE,
)
_PRE = {"a": 0, "alpha": 0, "b": 1, "beta": 1, "c": 2, "rc": 2, "pre": 2, "preview": 2}
_MARKER = re.compile(r"\s*(\(|\)|===|==|~=|!=|<=|>=|<|>|not\s+in\b|in\b|and\b|or\b|'[^']*'|\"[^\"]*\"|[A-Za-z_.]+)\s*")
#: Sort below and above every (number, number) of a version's part.
_LOWEST, _HIGHEST = (-1, 0), (9, 0)


class Requirement:
    """One requirement, taken apart. specifiers are (operator, version); url is for `name @ url`."""

    __slots__ = ("extras", "marker", "name", "specifiers", "url")

    def __init__(
        self, name: str, extras: list[str], specifiers: list[tuple[str, str]], url: str = "", marker: str = ""
    ) -> None:
        self.name = name
        self.extras = extras
        self.specifiers = specifiers
        self.url = url
        self.marker = marker

    @property
    def pinned(self) -> bool:
        """Whether only one version can fit."""
        return any(op == "===" or (op == "==" and not version.endswith(".*")) for op, version in self.specifiers)

    def allows(self, version: str) -> bool:
        """Say whether *version* fits. Raises ValueError when it is no version."""
        return all(_fits(version, op, wanted) for op, wanted in self.specifiers)


def normalise(name: str) -> str:
    """Return a distribution's name as indexes compare it: "Jinja_2.x" -> "jinja-2-x"."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse(text: str) -> Requirement:
    """Take one requirement apart. Raises ValueError with what is wrong."""
    found = _NAME.match(text)
    if not found:
        raise ValueError("%r does not start with a package's name" % text)
    name = normalise(found.group(1))
    extras = sorted(normalise(part.strip()) for part in (found.group(2) or "").split(",") if part.strip())
    rest = text[found.end() :]
    if rest.startswith("@"):
        url, _, marker = rest[1:].strip().partition(" ;")
        return Requirement(name, extras, [], url.strip(), marker.strip())
    rest, _, marker = rest.partition(";")
    rest = rest.strip()
    if rest.startswith("(") and rest.endswith(")"):
        rest = rest[1:-1]
    return Requirement(name, extras, _specifiers(text, rest), "", marker.strip())


def _specifiers(text: str, rest: str) -> list[tuple[str, str]]:
    specifiers = []
    for part in rest.split(",") if rest.strip() else []:
        found = _SPECIFIER.fullmatch(part)
        if not found:
            raise ValueError("%r is not a requirement: %r is not a version condition" % (text, part.strip()))
        op, version = found.groups()
        if op != "===":
            version_key(version[:-2] if version.endswith(".*") and op in ("==", "!=") else version)
        specifiers.append((op, version))
    return specifiers


def _parts(version: str) -> Mapping[str, Any]:
    found = _VERSION.fullmatch(version.strip())
    if not found:
        raise ValueError("%r is not a version" % version)
    parts = found.groupdict()
    release = [int(number) for number in parts["release"].split(".")]
    while len(release) > 1 and release[-1] == 0:
        release.pop()
    post = parts["post_bare"] or (parts["post_n"] or "0" if parts["post"] else None)
    return {
        "epoch": int(parts["epoch"] or 0),
        "release": tuple(release),
        "pre": (_PRE[parts["pre"].lower()], int(parts["pre_n"] or 0)) if parts["pre"] else None,
        "post": None if post is None else (0, int(post)),
        "dev": (0, int(parts["dev_n"] or 0)) if parts["dev"] else None,
        "local": tuple(
            (1, int(word), "") if word.isdigit() else (0, 0, word)
            for word in re.split(r"[-_.]", (parts["local"] or "").lower())
            if word
        ),
    }


def version_key(version: str, local: bool = True) -> tuple[Any, ...]:
    """Return something that orders versions. Raises ValueError when it is none."""
    parts = _parts(version)
    pre, post, dev = parts["pre"], parts["post"], parts["dev"]
    if pre is None:
        pre = _LOWEST if post is None and dev is not None else _HIGHEST
    key = (parts["epoch"], parts["release"], pre, post or _LOWEST, dev or _HIGHEST)
    return (*key, parts["local"]) if local else key


def _fits(version: str, op: str, wanted: str) -> bool:
    if op == "===":
        return version.lower() == wanted.lower()
    if op in ("==", "!="):
        return _equals(version, wanted) == (op == "==")
    if op == "~=":
        release = wanted.split("!")[-1].split(".")
        numbers = [part for part in release if part.isdigit()]
        epoch = wanted[: wanted.index("!") + 1] if "!" in wanted else ""
        whole = re.match(r"\d+(?:\.\d+)*", wanted[len(epoch) :])
        assert whole is not None, numbers
        prefix = epoch + whole.group().rpartition(".")[0] + ".*"
        return _fits(version, ">=", wanted) and _equals(version, prefix)
    have, want = version_key(version, local=False), version_key(wanted, local=False)
    if op == "<=":
        return have <= want
    if op == ">=":
        return have >= want
    same_base = have[:2] == want[:2]
    parts, limit = _parts(version), _parts(wanted)
    if op == "<":
        before_final = (parts["pre"] or parts["dev"]) and not (limit["pre"] or limit["dev"])
        return have < want and not (before_final and same_base)
    after_final = parts["post"] and not limit["post"]
    return have > want and not (after_final and same_base)


def _equals(version: str, wanted: str) -> bool:
    if not wanted.endswith(".*"):
        local = "+" in wanted
        return version_key(version, local) == version_key(wanted, local)
    have, want = _parts(version), _parts(wanted[:-2])
    prefix = wanted[:-2].split("!")[-1].lstrip("vV").split(".")
    release = list(have["release"]) + [0] * (len(prefix) - len(have["release"]))
    return bool(have["epoch"] == want["epoch"]) and release[: len(prefix)] == [int(part) for part in prefix]


def environment(python: str, machine: str, implementation: str = "CPython") -> dict[str, str]:
    """Return the variables of conditions for Linux with *python* ("3.11" or "3.11.2") on *machine*."""
    full = python if python.count(".") > 1 else python + ".0"
    return {
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": full,
        "implementation_version": full,
        "implementation_name": implementation.lower(),
        "platform_python_implementation": implementation,
        "platform_machine": machine,
        "platform_system": "Linux",
        "platform_release": "",
        "platform_version": "",
        "sys_platform": "linux",
        "os_name": "posix",
        "extra": "",
    }


def holds(marker: str, variables: Mapping[str, str], extras: Iterable[str] = ()) -> bool:
    """Evaluate a condition; with *extras*, for any of them. Raises ValueError when it is none."""
    if not marker.strip():
        return True
    return any(_Marker(marker, dict(variables, extra=extra)).value() for extra in list(extras) or [""])


class _Marker:
    """A recursive descent over `a and (b or c)`."""

    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self._text = text
        self._variables = variables
        self._words: list[str] = []
        at = 0
        while at < len(text):
            found = _MARKER.match(text, at)
            if not found:
                raise ValueError("%r is not a condition (at %r)" % (text, text[at:]))
            self._words.append(" ".join(found.group(1).split()))
            at = found.end()

    def value(self) -> bool:
        value = self._either()
        if self._words:
            raise ValueError("%r is not a condition (at %r)" % (self._text, " ".join(self._words)))
        return value

    def _take(self) -> str:
        if not self._words:
            raise ValueError("%r is not a condition: it ends too early" % self._text)
        return self._words.pop(0)

    def _either(self) -> bool:
        value = self._both()
        while self._words[:1] == ["or"]:
            self._take()
            value = self._both() or value
        return value

    def _both(self) -> bool:
        value = self._one()
        while self._words[:1] == ["and"]:
            self._take()
            value = self._one() and value
        return value

    def _one(self) -> bool:
        if self._words[:1] == ["("]:
            self._take()
            value = self._either()
            if self._take() != ")":
                raise ValueError("%r is not a condition: a bracket is not closed" % self._text)
            return value
        return self._compare(self._operand(), self._take(), self._operand())

    def _operand(self) -> tuple[bool, str]:
        word = self._take()
        if word[0] in "'\"":
            return False, word[1:-1]
        name = word.replace(".", "_")
        if name not in self._variables:
            raise ValueError("%r is not a condition: %s is not known" % (self._text, word))
        return name == "extra", self._variables[name]

    def _compare(self, left: tuple[bool, str], op: str, right: tuple[bool, str]) -> bool:
        a, b = left[1], right[1]
        if left[0] or right[0]:
            a, b = normalise(a), normalise(b)
        elif op in ("==", "!=", "<", "<=", ">", ">=", "~=", "==="):
            try:
                return Requirement("x", [], _specifiers(b, op + b)).allows(a)
            except ValueError:
                pass
        if op in ("in", "not in"):
            return (a in b) == (op == "in")
        order = {"==": a == b, "===": a == b, "!=": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}
        if op not in order:
            raise ValueError("%r is not a condition: %s does not compare" % (self._text, op))
        return order[op]
