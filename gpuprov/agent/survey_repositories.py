"""Survey: where the package manager gets packages from: apt's sources, dnf's and zypper's .repo files."""

from __future__ import annotations

import os
import re

from gpuprov.agent.facts import os_release
from gpuprov.agent.survey_packages import family
from gpuprov.agent.survey_proxy import masked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.survey_host import Host

_REPO_FOLDERS = {"dnf": ("/etc/yum.repos.d",), "zypper": ("/etc/zypp/repos.d",)}
_ONE_LINE = re.compile(r"^\s*(deb|deb-src)\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)")
#: Kinds of addresses in one .repo section, the first that is there; with what is asked for below it.
_ADDRESSES = (("baseurl", "repodata/repomd.xml"), ("metalink", ""), ("mirrorlist", ""))
_FALSE = ("0", "no", "false", "off")


def repositories(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - one signature for all parts
    """Return {"repositories": [{"url", "reachable", "error", "file"}]} of all that are enabled; nobody is asked yet."""
    kind = family(host)
    host.kept["sources"] = _apt(host) if kind == "apt" else _repo_files(host, kind)
    return {
        "repositories": [
            {"url": masked(source["url"]), "reachable": None, "error": source["error"], "file": source["file"]}
            for source in host.kept["sources"]
        ]
    }


def _apt(host: Host) -> list[dict[str, Any]]:
    folder = "/etc/apt/sources.list.d/"
    pairs: list[tuple[str, str, str]] = []
    for path in ("/etc/apt/sources.list", *(folder + name for name in host.names(folder))):
        text = host.text(path)
        if path.endswith(".sources"):
            pairs += [(uri, suite, path) for uri, suite in deb822(text)]
        elif path.endswith(".list"):
            lines = [_ONE_LINE.match(line) for line in text.splitlines()]
            pairs += [(line.group(2), line.group(3), path) for line in lines if line]
    sources: dict[str, dict[str, Any]] = {}
    for uri, suite, path in pairs:
        base = uri.rstrip("/") + ("/" if suite.endswith("/") else "/dists/") + suite.strip("/").lstrip(".")
        base = base.rstrip("/") + "/"
        ask = [base + "InRelease", base + "Release"]
        if uri.startswith("mirror"):  # a list of mirrors: mirror://, mirror+https://, mirror+file:/
            base = uri
            ask = [uri[len("mirror+") :] if uri.startswith("mirror+") else "http" + uri[len("mirror") :]]
        sources.setdefault(base, {"url": base, "ask": ask, "file": path, "error": None, "options": {}})
    return list(sources.values())


def deb822(text: str) -> list[tuple[str, str]]:
    """Return (URI, suite) of every enabled stanza of a .sources file."""
    pairs = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in " \t":
                fields[name] = fields.get(name, "") + " " + line.strip()
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields.get("enabled", "yes").lower() not in _FALSE:
            pairs += [
                (uri, suite) for uri in fields.get("uris", "").split() for suite in fields.get("suites", "").split()
            ]
    return pairs


def _repo_files(host: Host, kind: str) -> list[dict[str, Any]]:
    variables = _variables(host)
    sources = []
    for folder in _REPO_FOLDERS[kind]:
        for name in host.names(folder):
            if name.endswith(".repo"):
                path = "%s/%s" % (folder, name)
                for section in sections(host.text(path)):
                    sources += _source(section, path, variables)
    return sources


def _source(section: dict[str, str], path: str, variables: dict[str, str]) -> list[dict[str, Any]]:
    if section.get("enabled", "1").lower() in _FALSE:
        return []
    for key, below in _ADDRESSES:
        if section.get(key):
            url = re.sub(r"\$\{?(\w+)\}?", lambda m: variables.get(m.group(1), m.group(0)), section[key].split()[0])
            unknown = re.search(r"\$\{?\w+", url)
            error = "dnf's variable %s is not known" % unknown.group(0) if unknown else None
            ask = [url.rstrip("/") + "/" + below if below else url]
            options = {name: section[name] for name in section if name.startswith(("ssl", "proxy", "username"))}
            return [{"url": url, "ask": ask, "file": path, "error": error, "options": options}]
    return []


def sections(text: str) -> list[dict[str, str]]:
    """Return the sections of a .repo file, each name -> value; values may go on in indented lines."""
    answer: list[dict[str, str]] = []
    name = ""
    for line in text.splitlines():
        if line.strip().startswith("[") and line.strip().endswith("]"):
            answer.append({})
            name = ""
        elif answer and line.strip() and not line.lstrip().startswith(("#", ";")):
            if line[0] in " \t" and name:
                answer[-1][name] += " " + line.strip()
            elif "=" in line:
                name = line.partition("=")[0].strip().lower()
                answer[-1][name] = line.partition("=")[2].strip()
    return answer


def _variables(host: Host) -> dict[str, str]:
    """Return dnf's variables: those of the system, and those that the site has set."""
    release = os_release(host.text("/etc/os-release"))
    machine, version = os.uname().machine, release.get("VERSION_ID", "")
    major = version.split(".")[0]
    variables = {"basearch": machine, "arch": machine}
    if major:  # SUSE has minor releases in its addresses, Red Hat and the rebuilds have not
        whole = release.get("ID") in ("sles", "opensuse-leap")
        variables.update(releasever=version if whole else major, releasever_major=major)
    for folder in ("/etc/yum/vars", "/etc/dnf/vars"):
        for name in host.names(folder):
            variables[name] = host.text("%s/%s" % (folder, name)).strip()
    return variables
