"""A key that signs repositories: made by gpg in a folder of its own, gone with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile


class SigningKey:
    """One key pair. Used as a context manager, or closed: gpg-agent ends with it."""

    def __init__(self, name: str = "cudatools test <nobody@example.org>", kind: str = "rsa2048") -> None:
        self.home = tempfile.mkdtemp(prefix="gpgkey-")  # a short path: gpg-agent's socket lives there
        os.chmod(self.home, 0o700)
        self._gpg("--passphrase", "", "--quick-generate-key", name, kind, "sign", "never")
        listed = self._gpg("--with-colons", "--list-keys").decode()
        self.fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))

    def __enter__(self) -> SigningKey:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End gpg-agent and remove the key."""
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "gpg-agent"], check=False)
        shutil.rmtree(self.home, ignore_errors=True)

    def armoured(self) -> bytes:
        """Return the public key as text."""
        return self._gpg("--armor", "--export", self.fingerprint)

    def binary(self) -> bytes:
        """Return the public key as it is on the wire."""
        return self._gpg("--export", self.fingerprint)

    def clear_sign(self, text: bytes) -> bytes:
        """Return *text* with its signature around it (InRelease)."""
        return self._gpg("--armor", "--clear-sign", stdin=text)

    def sign_rpms(self, *paths: str) -> None:
        """Put this key's signature into package files of rpm."""
        gpg = ["--define", "__gpg " + str(shutil.which("gpg")), "--define", "_gpg_name " + self.fingerprint]
        words = ["rpmsign", *gpg, "--addsign", *paths]
        subprocess.run(words, env={**os.environ, "GNUPGHOME": self.home}, stdout=subprocess.DEVNULL, check=True)

    def sign_apart(self, path: str) -> None:
        """Write path.asc, a signature of a file (repomd.xml)."""
        with open(path, "rb") as f, open(path + ".asc", "wb") as out:
            out.write(self._gpg("--armor", "--detach-sign", stdin=f.read()))

    def _gpg(self, *words: str, stdin: bytes = b"") -> bytes:
        argv = ["gpg", "--homedir", self.home, "--batch", "--no-tty", "--quiet", *words]
        return subprocess.run(argv, input=stdin, stdout=subprocess.PIPE, check=True).stdout
