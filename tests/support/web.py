"""A web server for repositories: the files of a folder, on a port of its own, until this process ends."""

from __future__ import annotations

import functools
import http.server
import os
import threading


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *words: object) -> None:
        pass


def serve(folder: str) -> int:
    """Serve *folder* on 127.0.0.1 and return the port; this process's proxies are forgotten."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port
