"""The module `get_url`: a file from the network, with its checksum."""

from __future__ import annotations

import os
import re
import stat
import time

from gpuprov.agent.modules import attributes
from gpuprov.agent.modules.attributes import Attributes, lstat
from gpuprov.agent.modules.base import Change, ModuleError, NeedsEarlierChange, State
from gpuprov.agent.modules.content import BACKUP, check_folder, not_planned, put

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC: dict[str, Any] = {
    "summary": "A file from the network (http, https, ftp, file), with its checksum.",
    "args": {
        "url": {"type": "str", "required": True, "doc": "Where it comes from."},
        "dest": {"type": "path", "required": True, "doc": "Where on the host; in a folder, the URL's last part."},
        "checksum": {
            "type": "str",
            "default": "",
            "doc": "sha256:HEX, or sha256:URL of a list of checksums. A file that has it is never fetched again.",
        },
        "force": {
            "type": "bool",
            "default": False,
            "aliases": ["thirsty"],
            "doc": "Fetch it every time when there is no checksum. Default: only when dest is missing.",
        },
        "backup": BACKUP,
        "timeout": {"type": "int", "default": 10, "doc": "Seconds without an answer or data."},
        "headers": {"type": "dict", "doc": "Further request headers."},
        "unredirected_headers": {"type": "list", "doc": "Names of headers that a redirection does not get."},
        "http_agent": {"type": "str", "default": "gpuprov", "doc": "What the program calls itself."},
        "url_username": {"type": "str", "aliases": ["username"], "doc": "User for basic authentication."},
        "url_password": {"type": "str", "aliases": ["password"], "doc": "Password for basic authentication."},
        "force_basic_auth": {"type": "bool", "default": False, "doc": "Accepted; credentials go with the request."},
        "use_proxy": {"type": "bool", "default": True, "doc": "Use http_proxy, https_proxy, no_proxy."},
        "validate_certs": {"type": "bool", "default": True, "doc": "Check the server's certificate."},
        "client_cert": {"type": "path", "doc": "Certificate file of this client, PEM."},
        "client_key": {"type": "path", "doc": "Key of that certificate, PEM."},
        **attributes.ARGS,
    },
    "unsupported": {
        **attributes.UNSUPPORTED,
        "tmp_dest": "the file is fetched beside dest, so that replacing it is one step",
        "ciphers": "the host's own TLS settings are used",
        "decompress": "files are kept as they were sent",
        "use_gssapi": "use url_username, or a command task with curl --negotiate",
        "use_netrc": "use url_username and url_password",
    },
    "returns": {
        "url": "Where it comes from.",
        "dest": "Where it is.",
        "status_code": "Of the answer, when it was fetched.",
        "msg": "What the server said.",
        "elapsed": "Seconds that fetching took.",
        "checksum_dest": "SHA-1 of the file (when registered).",
        "backup_file": "The copy of the old file.",
        **attributes.RETURNS,
    },
}
_HEX = re.compile(r"^[0-9a-fA-F]{32,128}$")
_ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")


class GetUrl(State):
    """One file from the network."""

    _fetched = False
    _digest: tuple[str, str] | None = None

    def probe(self) -> Change:
        """Compare the file's checksum, when one is given; the network is asked only for a list of checksums."""
        self.dest = self._destination()
        not_planned(self.call, self.dest)
        self.wanted = Attributes(self.call)
        found = lstat(self.dest)
        change = Change(result={"url": self.args["url"], "dest": self.dest})
        if found is None:
            check_folder(self.call, self.dest)
            change.differences.append("absent")
        elif stat.S_ISDIR(found.st_mode):
            raise ModuleError("%s is a directory, not a file" % self.dest, code="is-a-directory")
        else:
            change.differences += self._content_differs() + self.wanted.differences(found)
        if change.differences and self.call.check:
            self.call.pending.add(self.dest)
        if change.differences and self.call.diff:
            change.diff = [{"before": "", "after": "".join("%s\n" % one for one in change.differences)}]
        if self.call.registered and found is not None:
            from gpuprov.agent.modules.source import sha1

            change.result["checksum_dest"] = sha1(self.dest)
        change.result.update(attributes.info(self.call, self.dest))
        return change

    def converge(self, change: Change) -> None:
        """Fetch the file beside dest, check it, and put it in its place."""
        if not {"absent", "content", "fetched every time"}.isdisjoint(change.differences):
            self._fetch(change)
            self._fetched = True
        self.wanted.apply(self.dest)

    def _destination(self) -> str:
        dest = attributes.path(self.args["dest"])
        if not dest.endswith("/") and not os.path.isdir(dest):
            return os.path.realpath(dest) if os.path.islink(dest) else dest
        name = os.path.basename(self.args["url"].split("?", 1)[0].split("#", 1)[0])
        if not name:
            raise ModuleError("dest is a folder, and %s ends without a file name" % self.args["url"])
        from urllib.parse import unquote

        return os.path.join(dest, os.path.basename(unquote(name)) or "index.html")

    def _content_differs(self) -> list[str]:
        wanted = self._wanted_digest()
        if wanted is not None:
            from gpuprov.agent.modules.stat import checksum

            return [] if checksum(self.dest, wanted[0]) == wanted[1] else ["content"]
        if not self.args["force"] or self._fetched:
            return []
        if self.call.check:
            raise NeedsEarlierChange("only fetching %s can tell whether it changed" % self.args["url"])
        return ["fetched every time"]

    def _wanted_digest(self) -> tuple[str, str] | None:
        """Return (algorithm, hex) of what the file has to be. Raises ModuleError."""
        text: str = self.args["checksum"].strip()
        if not text or self._digest is not None:
            return self._digest
        algorithm, colon, value = text.partition(":")
        if not colon or algorithm not in _ALGORITHMS:
            raise ModuleError("checksum is %r; it must be ALGORITHM:HEX or ALGORITHM:URL" % text, "example: sha256:...")
        if not _HEX.match(value):
            if "://" not in value:
                raise ModuleError("checksum %r is neither hexadecimal nor a URL" % value)
            value = self._listed(value)
        self._digest = algorithm, value.lower()
        return self._digest

    def _listed(self, url: str) -> str:
        """Return the checksum of our file from the list at *url*."""
        from gpuprov.agent.modules.download import open_url

        with open_url(self.call, url) as answer:
            text = answer.read(1 << 20).decode("utf-8", "replace")
        name = os.path.basename(self.args["url"].split("?", 1)[0])
        lines = [line.split() for line in text.splitlines() if line.strip()]
        for words in lines:
            if len(words) > 1 and _HEX.match(words[0]) and os.path.basename(words[-1].lstrip("*")) == name:
                return str(words[0])
        if len(lines) == 1 and len(lines[0]) == 1 and _HEX.match(lines[0][0]):
            return str(lines[0][0])
        raise ModuleError("%s has no checksum for %s" % (url, name), code="checksum-missing")

    def _fetch(self, change: Change) -> None:
        from gpuprov.agent.modules.download import fetch
        from gpuprov.agent.modules.source import same_files

        started = time.monotonic()
        wanted = self._wanted_digest()
        folder, name = os.path.split(self.dest)
        temporary = os.path.join(folder, ".%s.gpuprov-%s" % (name[:100], os.urandom(6).hex()))
        try:
            code, said = fetch(self.call, self.args["url"], temporary, wanted)
            change.result.update(status_code=code, msg=said)
            same = os.path.isfile(self.dest) and os.path.getsize(self.dest) == os.path.getsize(temporary)
            if same and same_files(self.dest, temporary):
                change.result["changed"] = change.differences != ["fetched every time"]
            else:
                change.result.update(put(self.call, self.dest, self.wanted, source=temporary))
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        change.result["elapsed"] = int(time.monotonic() - started)


MODULE = GetUrl
