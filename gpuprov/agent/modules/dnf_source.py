"""A repository for dnf: a .repo file, its key in rpm's database; tried before it counts."""

from __future__ import annotations

import os
import re

from gpuprov.agent.modules import openpgp
from gpuprov.agent.modules.base import ModuleError
from gpuprov.agent.modules.dnf_command import dnf
from gpuprov.agent.modules.repository_files import Repository, discard, same_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.agent.modules.base import Call

REPOS, KEYS, CACHE = "/etc/yum.repos.d", "/etc/pki/rpm-gpg", "/var/cache/dnf"


class DnfRepository(Repository):
    """name.repo and its key."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self.keyring = os.path.join(KEYS, "RPM-GPG-KEY-gpuprov-%s" % self.name)
        self._repo = os.path.join(REPOS, "%s.repo" % self.name)

    def files(self, keyring: bytes | None) -> dict[str, bytes | None]:
        """Return path -> content of all that belongs to it."""
        key = openpgp.text(keyring) if keyring else None
        return {self.keyring: key, self._repo: self._stanza(self.keyring).encode()}

    def all_paths(self) -> list[str]:
        """Return every file that it may have had."""
        return [self._repo, self.keyring]

    def rivals(self) -> list[str]:
        """Return other .repo files that have this repository and no other."""
        names = sorted(os.listdir(REPOS)) if os.path.isdir(REPOS) else []
        paths = [os.path.join(REPOS, name) for name in names if name.endswith(".repo")]
        return [path for path in paths if path != self._repo and self._names_it(path)]

    def _names_it(self, path: str) -> bool:
        urls = re.findall(r"^\s*baseurl\s*=\s*(\S+)", self.call.system.read_text(path), re.MULTILINE)
        found = [same_url(url, self.args["url"]) for url in urls]
        if any(found) and not all(found):
            message = "%s names this repository and others" % path
            raise ModuleError(message, "take the section with %s out of it" % self.args["url"], code="source-shared")
        return any(found)

    def unread(self) -> list[str]:
        """Return what rpm and dnf do not have of it: its key, its index."""
        with open(self.keyring, "rb") as f:
            keys = openpgp.fingerprints(f.read())
        missing = [key for key in keys if not self._imported(key)]
        found = os.listdir(CACHE) if os.path.isdir(CACHE) else []
        index = [] if any(name.startswith(self.name + "-") for name in found) else ["index of %s" % self.args["url"]]
        return ["key %s is not in rpm's database" % key for key in missing] + index

    def _imported(self, fingerprint: str) -> bool:
        """Say whether rpm has the key: it is called after the end of its fingerprint, newer rpm after all of it."""
        names = ["gpg-pubkey-" + fingerprint[-8:].lower(), "gpg-pubkey-" + fingerprint.lower()]
        return any(self.call.system.run(["rpm", "-q", name], self.call.env).rc == 0 for name in names)

    def attempt(self, keyring: bytes) -> None:
        """Read its index with a configuration of its own. Raises ModuleError; changes nothing."""
        folder = "/var/lib/gpuprov/try-%s" % os.urandom(6).hex()
        os.makedirs(folder + "/repos", mode=0o700)
        try:
            self.call.system.replace(folder + "/key", data=openpgp.text(keyring), mode=0o600)
            self.call.system.replace(
                folder + "/repos/try.repo", data=self._stanza(folder + "/key").encode(), mode=0o600
            )
            self._makecache("--setopt=reposdir=%s/repos" % folder, "--setopt=cachedir=%s/cache" % folder)
        finally:
            discard(folder)

    def read_index(self) -> None:
        """Import the key and read the index for the host. Raises ModuleError."""
        done = self.call.system.run(["rpm", "--import", self.keyring], self.call.env)
        if done.rc != 0:
            message = "rpm does not take the key of %s: %s" % (self.args["url"], done.last_line or done.why)
            hint = "this system's rules for signatures may be newer than the key (update-crypto-policies)"
            raise ModuleError(message, hint, code="key-refused")
        self._makecache("--disablerepo=*", "--enablerepo=%s" % self.name)

    def _makecache(self, *words: str) -> None:
        try:
            dnf(self.call, *words, "--setopt=skip_if_unavailable=False", "makecache", "--refresh")
        except ModuleError as error:
            said = error.result.get("stderr", "") + error.result.get("stdout", "")
            if re.search(r"repomd\.xml GPG signature verification error|Bad GPG signature", said):
                pinned = " or ".join(self.args["fingerprints"])
                message = "the index of %s is not signed by the pinned key %s: nothing was changed"
                hint = "when the publisher announces that the key was rotated, pin the new fingerprint and give its key"
                raise ModuleError(
                    message % (self.args["url"], pinned), hint, code="key-other", **error.result
                ) from None
            raise

    def remove(self) -> None:
        """Take its files away, and its key out of rpm's database."""
        if os.path.exists(self.keyring):
            with open(self.keyring, "rb") as f:
                for key in openpgp.fingerprints(f.read()):
                    if self._imported(key):
                        self.call.system.run(["rpm", "-e", "--allmatches", "gpg-pubkey-" + key[-8:].lower()])
        super().remove()

    def _stanza(self, key: str) -> str:
        args = self.args
        lines = ["# written by gpuprov", "[%s]" % self.name, "name=%s" % self.name, "baseurl=%s" % args["url"]]
        lines += ["enabled=1", "gpgcheck=1", "repo_gpgcheck=%d" % args["repo_gpgcheck"], "gpgkey=file://%s" % key]
        lines += ["proxy=%s" % args["proxy"]] if args["proxy"] else []
        lines += ["sslverify=0"] if not args["validate_certs"] else []
        excluded = [name for pin in args["pin"] for name in _excluded(pin)]
        return "\n".join([*lines, *(["excludepkgs=%s" % ",".join(excluded)] if excluded else []), ""])


def _excluded(pin: object) -> list[str]:
    """Return the packages of a negative pin. Raises ModuleError for what dnf has no word for."""
    if not isinstance(pin, dict) or not pin.get("packages") or int(pin.get("priority", 0)) >= 0:
        hint = 'dnf excludes packages of this repository: {packages: ["nvidia-*"], priority: -1}'
        raise ModuleError("pin %r is not understood" % (pin,), hint)
    packages = pin["packages"]
    return [str(one) for one in packages] if isinstance(packages, list) else [str(packages)]
