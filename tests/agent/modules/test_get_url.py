"""The module `get_url`, with a real web server on this machine."""

from __future__ import annotations

import base64
import hashlib
import http.server
import os
import threading
import unittest

from tests.support.module_calls import ModuleCase

DATA = b"driver" * 5000
HEX = hashlib.sha256(DATA).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", self.server.elsewhere + "/driver.run")
            self.end_headers()
        elif self.path.startswith("/private") and "Authorization" not in self.headers:
            self.send_error(401)
        elif self.path.startswith("/short"):
            self.answer(DATA[:100], len(DATA))
        elif self.path == "/SHA256SUMS":
            self.answer(("%s *other.run\n%s  driver.run\n" % ("0" * 64, HEX)).encode())
        elif self.path == "/none":
            self.send_error(404)
        else:
            self.answer(self.server.data)

    def answer(self, data: bytes, length: int = -1) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data) if length < 0 else length))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words: object) -> None:
        pass


class GetUrlTest(ModuleCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.serve()
        self.url = self.server.elsewhere = "http://127.0.0.1:%d" % self.server.server_port
        self.quiet = {"env": {"http_proxy": "", "HTTP_PROXY": "", "no_proxy": "127.0.0.1"}}

    def serve(self) -> http.server.HTTPServer:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.requests, server.data = [], DATA
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server

    def test_fetch_once(self) -> None:
        args = {"url": self.url + "/driver.run", "dest": self.path("d.run"), "mode": "0755"}
        done = self.twice("get_url", args, **self.quiet)
        self.assertEqual((os.path.getsize(self.path("d.run")), self.mode("d.run")), (len(DATA), "0755"))
        self.assertEqual((done["result"]["status_code"], done["result"]["url"]), (200, args["url"]))
        self.assertEqual(len(self.server.requests), 1)

    def test_into_a_folder(self) -> None:
        self.call("get_url", {"url": self.url + "/a/driver.run?x=1", "dest": self.folder}, **self.quiet)
        self.assertTrue(os.path.isfile(self.path("driver.run")))

    def test_checksum(self) -> None:
        self.write("d.run", "old")
        args = {"url": self.url + "/driver.run", "dest": self.path("d.run"), "checksum": "sha256:" + HEX.upper()}
        self.twice("get_url", args, **self.quiet)
        self.assertEqual(len(self.server.requests), 1)
        wrong = dict(args, dest=self.path("e.run"), checksum="sha256:" + "0" * 64)
        said = self.fails("checksum-mismatch", "get_url", wrong, **self.quiet)
        self.assertIn(HEX, said)
        self.assertEqual(sorted(os.listdir(self.folder)), ["d.run"])

    def test_a_list_of_checksums(self) -> None:
        args = {
            "url": self.url + "/driver.run",
            "dest": self.path("d.run"),
            "checksum": "sha256:%s/SHA256SUMS" % self.url,
        }
        self.twice("get_url", args, **self.quiet)
        self.fails("checksum-missing", "get_url", dict(args, url=self.url + "/x.run"), **self.quiet)

    def test_checksums_that_are_none(self) -> None:
        self.write("d.run", "old")
        for text in ("abc", "crc32:abcd", "sha256:xyz"):
            done = self.call(
                "get_url", {"url": self.url + "/x", "dest": self.path("d.run"), "checksum": text}, **self.quiet
            )
            self.assertEqual((done["outcome"], len(self.server.requests)), ("failed", 0), text)

    def test_force(self) -> None:
        args = {"url": self.url + "/driver.run", "dest": self.path("d.run"), "force": True}
        self.assertEqual(self.call("get_url", args, **self.quiet)["outcome"], "changed")
        self.assertEqual(self.call("get_url", args, **self.quiet)["outcome"], "ok")
        self.server.data = DATA[::-1]
        self.assertEqual(self.call("get_url", args, check=True, **self.quiet)["outcome"], "unknown")
        done = self.call("get_url", dict(args, backup=True), **self.quiet)
        self.assertEqual((done["outcome"], self.read("d.run")), ("changed", DATA[::-1].decode()))
        self.assertEqual(self.read(done["result"]["backup_file"]), DATA.decode())
        self.assertEqual(len(self.server.requests), 3)

    def test_file_url(self) -> None:
        self.write("source", "text")
        self.twice("get_url", {"url": "file://" + self.path("source"), "dest": self.path("f")})
        self.assertEqual(self.read("f"), "text")

    def test_credentials_do_not_follow_a_redirection(self) -> None:
        other = self.serve()
        self.server.elsewhere = "http://127.0.0.1:%d" % other.server_port
        args = {"url": self.url + "/moved", "dest": self.path("f"), "url_username": "u", "url_password": "p:x"}
        self.assertEqual(self.call("get_url", args, **self.quiet)["outcome"], "changed")
        sent = self.server.requests[0][1]["Authorization"].split()[1]
        self.assertEqual(base64.b64decode(sent), b"u:p:x")
        self.assertNotIn("Authorization", other.requests[0][1])

    def test_headers(self) -> None:
        args = {"url": self.url + "/x", "dest": self.path("f"), "headers": {"X-Token": "1"}, "http_agent": "me"}
        self.call("get_url", args, **self.quiet)
        sent = self.server.requests[0][1]
        self.assertEqual((sent.get("X-Token"), sent["User-Agent"]), ("1", "me"))

    def test_proxy_of_the_environment(self) -> None:
        proxy = {"http_proxy": self.url, "HTTP_PROXY": "", "no_proxy": ""}
        args = {"url": "http://files.example.org/driver.run", "dest": self.path("f")}
        self.assertEqual(self.call("get_url", args, env=proxy)["outcome"], "changed")
        self.assertEqual(self.server.requests[0][0], "http://files.example.org/driver.run")

    def test_refusals(self) -> None:
        args = {"dest": self.path("f")}
        self.fails("http-404", "get_url", dict(args, url=self.url + "/none"), **self.quiet)
        self.fails("http-401", "get_url", dict(args, url=self.url + "/private"), **self.quiet)
        self.fails("download-incomplete", "get_url", dict(args, url=self.url + "/short", timeout=2), **self.quiet)
        self.fails("network", "get_url", dict(args, url="http://127.0.0.1:9/x"), **self.quiet)
        self.fails("network", "get_url", dict(args, url="file://" + self.path("none")))
        self.fails("url", "get_url", dict(args, url="nonsense"))
        self.fails("directory-missing", "get_url", {"url": self.url + "/x", "dest": self.path("no/f")}, **self.quiet)
        self.assertEqual(os.listdir(self.folder), [])


if __name__ == "__main__":
    unittest.main()
