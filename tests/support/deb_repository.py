"""A signed apt repository made here: small packages with any names, versions and dependencies.

    repo = DebRepository(folder, key=SigningKey())
    repo.add("nvidia-open-580", "580.178.04-1ubuntu1", depends="nvidia-driver-580-open (= 580.178.04-1ubuntu1)")
    repo.publish()
    repo.write_source("/etc/apt/sources.list.d/cuda.list")

Packages are written without dpkg-deb (an ar archive with two tar files): 1 ms each. The index is
apt-ftparchive's, the signature gpg's.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import tarfile
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.support.signing_key import SigningKey

_FIELDS = ("Depends", "Pre-Depends", "Recommends", "Provides", "Conflicts", "Replaces", "Breaks")


class DebRepository:
    """One flat repository below *folder*. label and origin are what its Release says."""

    def __init__(self, folder: str, key: SigningKey, label: str = "NVIDIA CUDA", origin: str = "NVIDIA") -> None:
        self.folder = folder
        self.key = key
        self.label = label
        self.origin = origin
        self._published = 0.0
        os.makedirs(folder, exist_ok=True)

    def add(
        self,
        name: str,
        version: str,
        *,
        arch: str = "all",
        files: dict[str, bytes] | None = None,
        scripts: dict[str, str] | None = None,
        size_kb: int = 4096,
        **fields: str,
    ) -> str:
        """Put one package in; return the path of its file. size_kb is what it says it takes when installed."""
        lines = ["Package: " + name, "Version: " + version, "Architecture: " + arch]
        lines += ["Maintainer: nobody <nobody@example.org>", "Section: non-free/libs", "Installed-Size: %d" % size_kb]
        for field in _FIELDS:
            value = fields.pop(field.lower().replace("-", "_"), "")
            lines += ["%s: %s" % (field, value)] if value else []
        assert not fields, fields
        control = {"./control": ("\n".join([*lines, "Description: made for tests", ""]).encode(), 0o644)}
        control.update({"./" + key: (text.encode(), 0o755) for key, text in (scripts or {}).items()})
        conffiles = [path for path in files or {} if path.startswith("/etc/")]
        if conffiles:
            control["./conffiles"] = ("".join("%s\n" % path for path in conffiles).encode(), 0o644)
        sums = ["%s  %s\n" % (hashlib.md5(content).hexdigest(), path[1:]) for path, content in (files or {}).items()]
        control["./md5sums"] = ("".join(sums).encode(), 0o644)
        data = {"." + path: (content, 0o644) for path, content in (files or {}).items()}
        path = self.path(name, version, arch)
        with open(path, "wb") as f:
            f.write(b"!<arch>\n")
            for member, content in (
                ("debian-binary", b"2.0\n"),
                ("control.tar", _tar(control)),
                ("data.tar", _tar(data)),
            ):
                f.write(b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (member.encode(), 0, 0, 0, b"100644", len(content)))
                f.write(content + b"\n" * (len(content) % 2))
        return path

    def path(self, name: str, version: str, arch: str = "all") -> str:
        """Return where a package's file is, or would be."""
        return os.path.join(self.folder, "%s_%s_%s.deb" % (name, version.replace(":", "%3a"), arch))

    def remove(self, name: str, version: str, arch: str = "all") -> None:
        """Let a version vanish; publish makes it known."""
        os.unlink(self.path(name, version, arch))

    def publish(self, key: SigningKey | None = None) -> None:
        """Write and sign the index of what is there; with another *key* the repository's key is rotated."""
        if key is not None:
            self.key = key
        words = ["apt-ftparchive", "packages", "."]
        packages = subprocess.run(words, cwd=self.folder, stdout=subprocess.PIPE, check=True).stdout
        with open(os.path.join(self.folder, "Packages"), "wb") as f:
            f.write(packages)
        words = ["apt-ftparchive"]
        for field, value in (("Origin", self.origin), ("Label", self.label), ("Suite", "stable")):
            words += ["-o", "APT::FTPArchive::Release::%s=%s" % (field, value)]
        for name in ("InRelease", "Release"):
            if os.path.exists(os.path.join(self.folder, name)):
                os.unlink(os.path.join(self.folder, name))
        done = subprocess.run([*words, "release", "."], cwd=self.folder, stdout=subprocess.PIPE, check=True)
        with open(os.path.join(self.folder, "InRelease"), "wb") as f:
            f.write(self.key.clear_sign(done.stdout))
        # apt asks for what is newer than its own, in whole seconds, and two publications may share one
        self._published = max(time.time(), self._published + 2)
        os.utime(os.path.join(self.folder, "InRelease"), (self._published, self._published))
        with open(os.path.join(self.folder, "key.asc"), "wb") as f:
            f.write(self.key.armoured())

    def write_source(self, path: str, *, keyring: str = "") -> None:
        """Write the line of sources.list that points here, with the key beside it as Signed-By."""
        if not keyring:
            keyring = path + ".key.asc"
            with open(keyring, "wb") as f:
                f.write(self.key.armoured())
        with open(path, "w") as f:  # not file:, whose lists apt may link to instead of copying them
            f.write("deb [signed-by=%s] copy:%s ./\n" % (keyring, self.folder))


def _tar(members: dict[str, tuple[bytes, int]]) -> bytes:
    """Return a tar file with *members* and the folders that they are in, all root's."""
    out = io.BytesIO()
    folders = set()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, (content, mode) in {"./": (b"", 0o755), **members}.items():
            parts = name.split("/")[:-1]
            for end in range(1, len(parts) + 1):
                folder = "/".join(parts[:end]) + "/"
                if folder not in folders:
                    folders.add(folder)
                    info = tarfile.TarInfo(folder)
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(info)
            if not name.endswith("/"):
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(content), mode
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def bare_host() -> None:
    """Let dpkg and apt know no package but dpkg, and no source: quick, and the same on every machine.

    Only for a test that has a private view of /etc and /var (module_calls.isolated).
    """
    with open("/var/lib/dpkg/status") as f:
        dpkg = next(stanza for stanza in f.read().split("\n\n") if stanza.startswith("Package: dpkg\n"))
    kept = [
        line for line in dpkg.splitlines() if re.match(r"(Package|Status|Priority|Architecture|Version|Desc)", line)
    ]
    subprocess.run(["mount", "-t", "tmpfs", "dpkg", "/var/lib/dpkg"], check=True)
    for folder in ("info", "updates", "triggers", "alternatives", "parts"):
        os.mkdir(os.path.join("/var/lib/dpkg", folder))
    for name, text in (
        ("status", "\n".join([*kept, "Maintainer: nobody", "", ""])),
        ("available", ""),
        ("info/format", "1\n"),
        ("info/dpkg.list", ""),
        ("info/dpkg.md5sums", ""),
    ):
        with open(os.path.join("/var/lib/dpkg", name), "w") as f:
            f.write(text)
    remains = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/*", "/etc/apt/preferences.d/*", "/var/lib/apt/lists/*")
    remains += ("/var/lib/apt/extended_states", "/var/cache/apt/*.bin", "/var/lib/gpuprov")
    subprocess.run("rm -rf %s" % " ".join(remains), shell=True, check=True)
