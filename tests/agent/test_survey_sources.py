"""The survey's view of package sources: what is written down, which proxy is used, and whether they answer."""

from __future__ import annotations

import http.server
import os
import socket
import ssl
import sys
import threading
import unittest
import warnings
from typing import ClassVar

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.agent import (
    survey_ask,
    survey_reach,
    survey_repositories,
)
from gpuprov.agent.survey import survey
from tests.support.survey_tree import Tree

DEB822 = """# a comment
Types: deb deb-src
URIs: http://a.test/debian/
 http://b.test/debian
Suites: bookworm bookworm-updates
Components: main

Enabled: no
Types: deb
URIs: http://no.test
Suites: x

Types: deb
URIs: file:/srv/repo mirror+file:/etc/apt/mirrors.txt
Suites: ./
"""


class SourcesTest(unittest.TestCase):
    def test_deb822(self):
        tree = Tree(self).debian().put("/etc/apt/sources.list.d/x.sources", DEB822)
        tree.put("/etc/apt/sources.list.d/off.list.disabled", "deb http://no.test/ x main\n")
        tree.put(
            "/etc/apt/sources.list.d/y.list",
            "deb https://u:pw@a.test/debian sid main\ndeb-src http://a.test/debian bookworm main\n",
        )
        found = [one["url"] for one in tree.survey()["repositories"]]
        expected = ["http://a.test/debian/dists/bookworm/", "http://a.test/debian/dists/bookworm-updates/"]
        expected += ["http://b.test/debian/dists/bookworm/", "http://b.test/debian/dists/bookworm-updates/"]
        expected += ["file:/srv/repo/", "mirror+file:/etc/apt/mirrors.txt", "https://********@a.test/debian/dists/sid/"]
        self.assertEqual(found, expected)

    def test_environment_and_masks(self):
        tree = (
            Tree(self).debian().put("/etc/environment", "HTTPS_PROXY='http://me:secret@p.test:8080'\nno_proxy=a.test\n")
        )
        proxies = tree.survey()["proxy"]
        self.assertEqual(
            proxies["etc_environment"], {"https_proxy": "http://********@p.test:8080", "no_proxy": "a.test"}
        )
        self.assertEqual(list(proxies), ["etc_environment"])

    def test_conda_of_a_login(self):
        tree = Tree(self).debian().put("/etc/environment", 'CONDA_PREFIX="/opt/conda/envs/ml"\n')
        self.assertEqual(tree.survey()["conda"], "/opt/conda/envs/ml")

    def test_versionlock_of_dnf5_and_locks_of_zypper(self):
        tree = Tree(self).rpm().put("/etc/dnf/versionlock.toml", '[[packages]]\nname = "nvidia-driver"\n')
        self.assertEqual(tree.survey()["holds"], ["nvidia-driver"])
        tree = Tree(self).rpm().put("/usr/bin/zypper", "", 0o755)
        tree.put("/etc/zypp/locks", "type: package\nsolvable_name: nvidia-driver-G06\n")
        self.assertEqual(tree.survey()["holds"], ["nvidia-driver-G06"])

    def test_releasever(self):
        for release, expected in (
            ('ID="rhel"\nVERSION_ID="9.4"\n', "9"),
            ("ID=fedora\nVERSION_ID=42\n", "42"),
            ('ID="sles"\nVERSION_ID="15.6"\n', "15.6"),
        ):
            host = Tree(self).put("/etc/os-release", release).host()
            self.assertEqual(survey_repositories._variables(host)["releasever"], expected)
        host = (
            Tree(self)
            .put("/etc/os-release", "ID=rhel\nVERSION_ID=9.4\n")
            .put("/etc/dnf/vars/releasever", "9.2\n")
            .host()
        )
        self.assertEqual(survey_repositories._variables(host)["releasever"], "9.2")


class ProxyChoiceTest(unittest.TestCase):
    def chosen(self, url, options=None, **proxies):
        source = {"ask": [url], "options": options or {}}
        return survey_reach.proxy_for(source, {"environment": {}, "etc_environment": {}, **proxies})

    def test_whose_proxy(self):
        http = "http://a.test/x"
        env = {"http_proxy": "http://e:1", "no_proxy": "b.test, .c.test"}
        self.assertEqual(self.chosen(http), "")
        self.assertEqual(self.chosen(http, environment=env), "http://e:1")
        self.assertEqual(self.chosen("http://b.test:8080/x", environment=env), "")
        self.assertEqual(self.chosen("http://u:p@x.c.test/", environment=env), "")
        self.assertEqual(self.chosen("https://a.test/", environment=env), "")
        self.assertEqual(self.chosen(http, etc_environment=env), "http://e:1")
        apt = {"Acquire::http::Proxy": "http://apt:1", "Acquire::http::Proxy::d.test": "DIRECT"}
        self.assertEqual(self.chosen(http, environment=env, apt=apt), "http://apt:1")
        self.assertEqual(self.chosen("http://d.test/x", environment=env, apt=apt), "")
        self.assertEqual(self.chosen("https://a.test/x", apt=apt), "http://apt:1")
        self.assertEqual(self.chosen(http, dnf={"proxy": "http://dnf:1"}), "http://dnf:1")
        self.assertEqual(self.chosen(http, {"proxy": "_none_"}, dnf={"proxy": "http://dnf:1"}), "")


class Answers(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[list] = []

    def do_HEAD(self):
        self.asked.append(self.path)
        status = 404 if "nowhere" in self.path else 200
        for word, code in (
            ("login", 401),
            ("nohead", 405),
            ("broken", 500),
            ("InRelease", 404 if "old" in self.path else status),
        ):
            if word in self.path:
                status = code
                break
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_):
        pass


class ReachTest(unittest.TestCase):
    """Real servers on this machine: one that answers, one that is silent, one that is not there."""

    def setUp(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        Answers.asked = []
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.url = "http://127.0.0.1:%d" % self.server.server_port

    def reach(self, tree):
        with warnings.catch_warnings():  # the server's threads live here, and never in an agent
            warnings.simplefilter("ignore", DeprecationWarning)
            found = survey(tree.system, tree.root, network=True)
        return {one["url"]: one for one in found["repositories"]}

    def test_what_answers_say(self):
        silent = socket.socket()
        self.addCleanup(silent.close)
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        closed = socket.socket()
        closed.bind(("127.0.0.1", 0))
        gone = "http://127.0.0.1:%d" % closed.getsockname()[1]
        closed.close()
        quiet = "http://127.0.0.1:%d" % silent.getsockname()[1]
        uris = [
            self.url,
            self.url + "/old",
            self.url + "/nowhere",
            self.url + "/login",
            self.url + "/broken",
            self.url + "/nohead",
            gone,
            quiet,
        ]
        tree = Tree(self).debian().put("/srv/repo/Release").put(
            "/etc/apt/sources.list",
            "".join("deb %s bookworm main\n" % uri for uri in [*uris, "s3://bucket"])
            + "deb file:/srv/repo ./\ndeb file:/srv/none ./\n",
        )  # fmt: skip
        found = list(self.reach(tree).values())
        reachable = [True, True, False, None, False, True, False, False, None, True, False]
        self.assertEqual([one["reachable"] for one in found], reachable)
        errors = [
            None,
            None,
            "HTTP 404",
            "401",
            "HTTP 500",
            None,
            "refused",
            "no answer within 3 s",
            "s3",
            None,
            "/srv/none",
        ]
        for one, error in zip(found, errors):
            self.assertIn(error, one["error"]) if error else self.assertIsNone(one["error"])
        self.assertIn("/old/dists/bookworm/Release", Answers.asked)

    def test_what_a_repository_demands_of_tls(self):
        host = Tree(self).host()
        self.assertEqual(survey_ask._context(host, {}).verify_mode, ssl.CERT_REQUIRED)
        self.assertTrue(survey_ask._context(host, {}).check_hostname)
        self.assertEqual(survey_ask._context(host, {"sslverify": "0"}).verify_mode, ssl.CERT_NONE)

    def test_through_a_proxy(self):
        tree = Tree(self).debian().put("/etc/apt/sources.list", "deb http://m.test/debian bookworm main\n")
        tree.program("/usr/bin/apt-config", 'Acquire::http::Proxy "%s";\n' % self.url.replace("//", "//u:pw@"))
        (one,) = self.reach(tree).values()
        self.assertEqual((one["reachable"], one["via"]), (True, self.url.replace("//", "//********@")))
        self.assertEqual(Answers.asked, ["http://m.test/debian/dists/bookworm/InRelease"])

    def test_dnf(self):
        tree = Tree(self).rpm().put("/etc/os-release", "ID=rocky\nVERSION_ID=9.4\n")
        tree.put(
            "/etc/yum.repos.d/x.repo",
            "[a]\nbaseurl=%s/$releasever/\n[b]\nmirrorlist=%s/list\n[c]\nbaseurl=http://$odd/\n" % (self.url, self.url),
        )
        found = list(self.reach(tree).values())
        self.assertEqual([one["reachable"] for one in found], [True, True, None])
        self.assertEqual(sorted(Answers.asked), ["/9/repodata/repomd.xml", "/list"])


if __name__ == "__main__":
    unittest.main()
