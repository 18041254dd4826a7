"""The module `gpuprov_repository`: a package repository whose key is pinned by its fingerprint."""

from __future__ import annotations

import os

from gpuprov.agent.modules import openpgp
from gpuprov.agent.modules.base import Change, ModuleError, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.agent.modules.repository_files import Repository

SPEC: dict[str, Any] = {
    "summary": "A package repository, trusted by the full fingerprint of its key, and really readable.",
    "args": {
        "name": {"type": "str", "required": True, "doc": "Its name on the host: letters, digits, - and _."},
        "state": {
            "type": "str",
            "choices": ["present", "absent"],
            "default": "present",
            "doc": "absent: without its files, key and pins.",
        },
        "url": {"type": "str", "default": "", "doc": "Where it is."},
        "suites": {"type": "list", "default": ["/"], "doc": "apt: suites; / for a flat repository such as NVIDIA's."},
        "components": {"type": "list", "default": [], "doc": "apt: components, where suites are not flat."},
        "key_url": {"type": "str", "doc": "Where its key is fetched from."},
        "key": {"type": "str", "doc": "Its key as text, instead: lookup('file', ...) lets it travel."},
        "key_file": {"type": "path", "doc": "Its key as a file of the host, instead."},
        "fingerprints": {
            "type": "list",
            "default": [],
            "doc": "Full fingerprints (40 or 64 hex digits) that its keys must have; no other key is trusted.",
        },
        "pin": {
            "type": "list",
            "default": [],
            "doc": "apt: list of {packages, priority, and origin, release or version}; origin alone means this one's "
            "host. dnf: {packages} with a negative priority are excluded.",
        },
        "proxy": {"type": "str", "default": "", "doc": "Proxy for it: http://proxy:3128."},
        "repo_gpgcheck": {"type": "bool", "default": False, "doc": "dnf: its index is signed, too; check that."},
        "use": {
            "type": "str",
            "choices": ["apt", "auto", "dnf"],
            "default": "auto",
            "doc": "Which package manager; auto: apt where it is, else dnf.",
        },
        "validate_certs": {"type": "bool", "default": True, "doc": "Check certificates when the key is fetched."},
        "timeout": {"type": "int", "default": 30, "doc": "Seconds without an answer when the key is fetched."},
        "lock_timeout": {"type": "int", "default": 600, "doc": "Seconds to wait for the package manager's lock."},
    },
    "exclusive": [["key_url", "key", "key_file"]],
    "returns": {
        "files": "The files of it.",
        "fingerprints": "Of the keys that it is trusted by.",
        "removed_sources": "Files that named the same repository with another key, set aside.",
    },
}


class RepositoryState(State):
    """One repository: key, source, pins, proxy, and an index that was fetched with them."""

    _keyring: bytes | None = None

    def probe(self) -> Change:
        """Compare files; the network is not asked."""
        self.repository = getattr(self, "repository", None) or _repository(self)
        present = self.args["state"] == "present"
        if present:
            self._check_arguments()
        keyring = self._own_keyring() if present else None
        files = self.repository.files(keyring) if present else {}
        change = Change(result={"files": sorted(files), "fingerprints": self._trusted(keyring)})
        for path, data in files.items():
            if data is None or not os.path.exists(path) or self.system.read(path) != data:
                change.differences.append(path)
        change.differences += [
            path for path in self.repository.all_paths() if path not in files and os.path.exists(path)
        ]
        if present:
            rivals = self.repository.rivals()
            change.differences += ["%s names the same repository" % path for path in rivals]
            change.differences += self.repository.unread() if not change.differences else []
        if change.differences and self.call.check:
            self.call.pending.update([*change.differences, "package cache"])
        if change.differences and self.call.diff:
            change.diff = [{"before": "", "after": "".join("%s\n" % one for one in change.differences)}]
        return change

    def converge(self, change: Change) -> None:
        """Check the key, try the repository without touching the host's settings, then put all in place."""
        if self.args["state"] == "absent":
            self.repository.remove()
            return
        keyring = self._own_keyring() or self._fetched_keyring()
        self.repository.attempt(keyring)
        moved = self.repository.set_rivals_aside()
        if moved:
            change.result["removed_sources"] = moved
            self.call.warnings.append("set aside, they name the same repository: %s" % ", ".join(moved))
        self.repository.put(keyring)

    def _check_arguments(self) -> None:
        args = self.args
        pinned = [openpgp.pretty(str(one)) for one in args["fingerprints"]]
        wrong = [one for one in pinned if len(one) not in (40, 64) or set(one) - set("0123456789ABCDEF")]
        if wrong:
            message = "%s is no full fingerprint: it has %d digits, 40 or 64 are needed" % (wrong[0], len(wrong[0]))
            raise ModuleError(message, "short key ids can be forged; gpg --show-keys shows the fingerprint")
        if not pinned:
            raise ModuleError("fingerprints is missing: a repository is trusted by the fingerprint of its key only")
        if not args["url"] or not any(args.get(name) for name in ("key_url", "key", "key_file")):
            raise ModuleError("url, and one of key_url, key and key_file, are needed")
        self.pinned = pinned

    def _own_keyring(self) -> bytes | None:
        """Return the key that the host has already, when it has no key but the pinned ones."""
        try:
            data = openpgp.binary(self.system.read(self.repository.keyring, openpgp.LIMIT_BYTES))
            return data if set(openpgp.fingerprints(data)) <= set(self.pinned) else None
        except (FileNotFoundError, openpgp.NotAKey):
            return None

    def _trusted(self, keyring: bytes | None) -> list[str]:
        return openpgp.fingerprints(keyring) if keyring else []

    def _fetched_keyring(self) -> bytes:
        """Return the key from where the task says, if it is the pinned one. Raises ModuleError."""
        data, where = self._key_data()
        try:
            keyring = openpgp.binary(data)
            found = openpgp.fingerprints(keyring)
        except openpgp.NotAKey as error:
            message = "%s is no OpenPGP key: %s" % (where, error)
            raise ModuleError(message, "a proxy or a mirror may have answered with a page", code="not-a-key") from None
        strangers = [one for one in found if one not in self.pinned]
        if strangers:
            message = "%s has the key %s, pinned is %s: nothing was changed"
            raise ModuleError(
                message % (where, " and ".join(strangers), " or ".join(self.pinned)),
                "when the publisher announces that it was rotated, pin the new fingerprint; otherwise do not trust it",
                code="key-other",
                found=found,
                pinned=self.pinned,
            )
        return keyring

    def _key_data(self) -> tuple[bytes, str]:
        args = self.args
        if args.get("key"):
            return args["key"].encode(), "the given key"
        if args.get("key_file"):
            return self.system.read(args["key_file"], openpgp.LIMIT_BYTES), args["key_file"]
        from gpuprov.agent.modules.download import open_url

        proxy = args["proxy"]
        if proxy:
            self.call.env = {**self.call.env, "http_proxy": proxy, "https_proxy": proxy}
        args.update(http_agent="gpuprov", use_proxy=True)
        with open_url(self.call, args["key_url"]) as answer:
            return answer.read(openpgp.LIMIT_BYTES), args["key_url"]


def _repository(module: RepositoryState) -> Repository:
    """Return the repository by the host's package manager. Raises ModuleError."""
    which, use = module.system.which, module.args["use"]
    if use == "apt" or (use == "auto" and which("apt-get")):
        from gpuprov.agent.modules.apt_source import AptRepository

        return AptRepository(module.call)
    if use == "dnf" or which("dnf"):
        from gpuprov.agent.modules.dnf_source import DnfRepository

        return DnfRepository(module.call)
    raise ModuleError("this host has neither apt-get nor dnf", code="package-manager-unknown")


MODULE = RepositoryState
