"""A repository for apt: a deb822 source with its own key, pins, proxy; tried before it counts."""

from __future__ import annotations

import os
import re

from gpuprov.agent.modules.apt_command import apt_get
from gpuprov.agent.modules.base import ModuleError
from gpuprov.agent.modules.repository_files import Repository, discard, host_of, same_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.modules.base import Call

SOURCES, LISTS = "/etc/apt/sources.list.d", "/var/lib/apt/lists"
#: Characters that apt writes as %xx in the names of its index files.
_QUOTED = '\\|{}[]<>"^~_=!@#$%^&*'
_ONE_LINE = re.compile(r"^\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s+)?(\S+)\s", re.MULTILINE)
_DEB822 = re.compile(r"^URIs:\s*(.*)$", re.MULTILINE | re.IGNORECASE)


class AptRepository(Repository):
    """name.sources, its keyring, its pins and its proxy."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self.keyring = "/etc/apt/keyrings/gpuprov-%s.gpg" % self.name
        self._source = os.path.join(SOURCES, "%s.sources" % self.name)
        self._pins = "/etc/apt/preferences.d/gpuprov-%s.pref" % self.name
        self._proxy = "/etc/apt/apt.conf.d/90gpuprov-%s" % self.name

    def files(self, keyring: bytes | None) -> dict[str, bytes | None]:
        """Return path -> content of all that belongs to it."""
        files = {self.keyring: keyring, self._source: self._stanza(self.keyring).encode()}
        if self.args["pin"]:
            files[self._pins] = "\n".join(_pin(pin, self.args["url"]) for pin in self.args["pin"]).encode()
        if self.args["proxy"]:
            files[self._proxy] = _proxy(self.args["url"], self.args["proxy"]).encode()
        return files

    def all_paths(self) -> list[str]:
        """Return every file that it may have had."""
        return [self._source, self.keyring, self._pins, self._proxy]

    def rivals(self) -> list[str]:
        """Return other files that name it: apt refuses two keys for one repository."""
        names = sorted(os.listdir(SOURCES)) if os.path.isdir(SOURCES) else []
        paths = [os.path.join(SOURCES, name) for name in names if name.endswith((".list", ".sources"))]
        return [path for path in paths if path != self._source and self._names_it(path)]

    def _names_it(self, path: str) -> bool:
        text = self.call.system.read_text(path)
        urls = _ONE_LINE.findall(text) + [url for line in _DEB822.findall(text) for url in line.split()]
        found = [same_url(url, self.args["url"]) for url in urls]
        if any(found) and not all(found):
            message = "%s names this repository and others" % path
            raise ModuleError(message, "take the line with %s out of it" % self.args["url"], code="source-shared")
        return any(found)

    def unread(self) -> list[str]:
        """Return the suites whose index the host does not have."""
        missing = [suite for suite in self.args["suites"] if not _index(LISTS, self.args["url"], suite)]
        return ["index of %s %s" % (self.args["url"], suite) for suite in missing]

    def attempt(self, keyring: bytes) -> None:
        """Read its index into a folder of its own. Raises ModuleError; the host's settings are not touched."""
        folder = "/var/lib/gpuprov/try-%s" % os.urandom(6).hex()
        os.makedirs(folder + "/lists/partial", mode=0o755)
        try:
            for path in (folder, folder + "/lists", folder + "/lists/partial"):
                os.chmod(path, 0o755)  # noqa: S103 - apt fetches as a user of its own, whatever our umask is
            files = {"key.gpg": keyring, "try.sources": self._stanza(folder + "/key.gpg").encode()}
            files["proxy.conf"] = _proxy(self.args["url"], self.args["proxy"]).encode() if self.args["proxy"] else b""
            for name, data in files.items():
                self.call.system.replace(os.path.join(folder, name), data=data, mode=0o644)
            self._update(folder + "/try.sources", folder + "/lists", folder + "/proxy.conf")
        finally:
            discard(folder)

    def read_index(self) -> None:
        """Read its index, and only that, for the host. Raises ModuleError."""
        self._update(self._source, LISTS, "")

    def _update(self, source: str, lists: str, config: str) -> None:
        options = {
            "APT::Update::Error-Mode": "any",
            "Dir::Etc::sourcelist": source,
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": lists + "/",
            "APT::Get::List-Cleanup": "0",
        }
        if lists != LISTS:  # what the host knows of packages stays as it is
            options.update({"Dir::Cache::pkgcache": "", "Dir::Cache::srcpkgcache": ""})
        words = [word for item in options.items() for word in ("-o", "%s=%s" % item)]
        if config:
            self.call.env = {**self.call.env, "APT_CONFIG": config}
        try:
            apt_get(self.call, "update", *words)
        except ModuleError as error:
            raise self._refused(error) from None
        finally:
            self.call.env = {name: value for name, value in self.call.env.items() if name != "APT_CONFIG"}
        missing = [suite for suite in self.args["suites"] if not _index(lists, self.args["url"], suite)]
        if missing:
            message = "%s gave no index for %s, and apt did not complain" % (self.args["url"], ", ".join(missing))
            raise ModuleError(message, "check url and suites", code="index-missing")

    def _refused(self, error: ModuleError) -> ModuleError:
        """Return apt's refusal in terms of keys, where it is one."""
        said = error.result.get("stderr", "") + error.result.get("stdout", "")
        url, pinned = self.args["url"], " or ".join(self.args["fingerprints"])
        other = re.search(r"NO_PUBKEY (\w+)|Missing key (\w+)", said)
        if "SHA1 is not considered secure" in said:
            message = "%s is signed by a key that this system's apt does not accept any more (SHA-1)" % url
            hint = "use the repository of this system's own release; NVIDIA's for Debian 13 has a newer key"
            return ModuleError(message, hint, code="key-sha1", **error.result)
        if other:
            signer = other.group(1) or other.group(2)
            message = "%s is signed by the key %s, pinned is %s: nothing was changed" % (url, signer, pinned)
            hint = "when the publisher announces that the key was rotated, pin the new fingerprint and give its key"
            return ModuleError(message, hint, code="key-other", **error.result)
        if re.search(r"BADSIG|INVALID|invalid signature|Bad signature", said):
            message = "the index of %s is not what was signed: its signature is wrong" % url
            return ModuleError(
                message, "a mirror is damaged, or somebody changed it", code="not-signed", **error.result
            )
        return error

    def _stanza(self, keyring: str) -> str:
        lines = ["# written by gpuprov", "Types: deb", "URIs: %s" % self.args["url"]]
        lines.append("Suites: %s" % " ".join(self.args["suites"]))
        lines += ["Components: %s" % " ".join(self.args["components"])] if self.args["components"] else []
        return "\n".join([*lines, "Signed-By: %s" % keyring, ""])


def _pin(pin: Any, url: str) -> str:
    """Return one entry for preferences.d. Raises ModuleError."""
    known = {"packages", "priority", "origin", "release", "version"}
    if not isinstance(pin, dict) or not pin.get("packages") or set(pin) - known or "priority" not in pin:
        raise ModuleError(
            "pin %r is not understood" % (pin,), 'example: {packages: ["nvidia-*"], priority: -1, origin: HOST}'
        )
    packages = pin["packages"] if isinstance(pin["packages"], list) else [pin["packages"]]
    if pin.get("version"):
        what = "version %s" % pin["version"]
    elif pin.get("release"):
        what = "release %s" % pin["release"]
    else:
        what = 'origin "%s"' % (pin.get("origin") or host_of(url))
    return "Package: %s\nPin: %s\nPin-Priority: %d\n" % (" ".join(map(str, packages)), what, int(pin["priority"]))


def _proxy(url: str, proxy: str) -> str:
    host = host_of(url)
    return "".join('Acquire::%s::Proxy::%s "%s";\n' % (scheme, host, proxy) for scheme in ("http", "https"))


def _index(lists: str, url: str, suite: str) -> bool:
    """Say whether apt has a signed index, with packages, of one suite."""
    base = url.rstrip("/") + ("/" if suite.endswith("/") else "/dists/") + suite.rstrip("/")
    plain = re.sub(r"^[a-z+]+:(//)?", "", base).rstrip("/")
    name = "".join("%%%02x" % ord(one) if one in _QUOTED else one for one in plain).replace("/", "_") + "_"
    found = [one[len(name) :] for one in (os.listdir(lists) if os.path.isdir(lists) else []) if one.startswith(name)]
    return bool({"InRelease", "Release"}.intersection(found)) and any("Packages" in one for one in found)
