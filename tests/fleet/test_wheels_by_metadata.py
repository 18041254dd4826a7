"""What only comes as a CUDA build is refused before gigabytes are fetched: the real pip, a real index over HTTP."""

from __future__ import annotations

import os
import platform
import re
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from gpuprov.errors import RefusedError
from gpuprov.fleet.wheelhouse import Wheelhouse
from tests.support.wheels import make_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGE = 3_000_000


class Index:
    """A package index. kind: "metadata" (a file of metadata beside each wheel) or "ranges" (parts of files)."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        self.sent = 0  # bytes of wheels
        self._guard = threading.Lock()
        handler = type("Handler", (_Handler,), {"index": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/simple"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Index:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, name: str, *requires: str) -> None:
        path = make_wheel(self.folder, name, "1.0", requires)
        with zipfile.ZipFile(path, "a") as wheel:
            wheel.writestr("large.bin", os.urandom(LARGE))
            wheel.writestr(zipfile.ZipInfo("end.txt"), "")

    def count(self, size: int) -> None:
        with self._guard:
            self.sent += size


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    index: Index

    def do_GET(self) -> None:
        folder, _, name = self.path.strip("/").partition("/")
        if folder == "simple":
            self._answer(200, self._page(name), {"Content-Type": "text/html"})
        elif name.endswith(".metadata"):
            with zipfile.ZipFile(self.index.folder / name.removesuffix(".metadata")) as wheel:
                inside = next(one for one in wheel.namelist() if one.endswith("/METADATA"))
                self._answer(200, wheel.read(inside))
        else:
            self._part((self.index.folder / name).read_bytes())

    def do_HEAD(self) -> None:
        self.do_GET()

    def _page(self, name: str) -> bytes:
        note = ' data-core-metadata="true"' if self.index.kind == "metadata" else ""
        files = [path.name for path in self.index.folder.glob(f"{name.replace('-', '_')}-*.whl")]
        return "".join(f'<a href="/files/{one}"{note}>{one}</a>\n' for one in files).encode()

    def _part(self, data: bytes) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        status, headers, part = 200, {"Accept-Ranges": "bytes"}, data
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
            status, part = 206, data[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        if self.command == "GET":
            self.index.count(len(part))
        self._answer(status, part, headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(params=["metadata", "ranges"])
def index(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    for name in list(os.environ):
        if name.startswith("PIP_") or name.lower() == "http_proxy":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    folder = tmp_path / "index"
    folder.mkdir()
    with Index(folder, request.param) as served:
        yield served


def test_a_cuda_build_is_refused_by_its_metadata_alone(index: Index, tmp_path: Path) -> None:
    index.add("torch", "nvidia-cublas-cu13", "filelock")
    index.add("nvidia-cublas-cu13")
    index.add("filelock")
    version = {"major": sys.version_info[0], "minor": sys.version_info[1]}
    facts = {"python": {"version": version}, "architecture": platform.machine(), "gpuprov": {"gpus": []}}
    task = {"name": ["torch==1.0"], "virtualenv": "/opt/env", "source": "controller", "index_url": index.url}
    with pytest.raises(RefusedError) as error:
        Wheelhouse(str(tmp_path / "cache")).resolve(task, facts)
    assert error.value.message == (
        "torch==1.0 needs CUDA packages (nvidia-cublas-cu13==1.0), and the host has no NVIDIA GPU"
    )
    assert index.sent == 0 if index.kind == "metadata" else 0 < index.sent < LARGE / 10
