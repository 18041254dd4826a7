"""assert, fail, debug, set_fact, setup, stat, ping, wait_for, reboot (its refusal)."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import threading
import time
import unittest

from gpuprov.agent.modules import reboot
from gpuprov.agent.modules.base import ModuleError
from gpuprov.agent.system import System
from tests.support.module_calls import ModuleCase


class AssertTest(ModuleCase):
    def test_holds(self) -> None:
        done = self.call("assert", {"that": ["a", "b"], "_decided": {"a": True}}, evaluate=lambda text: text == "b")
        self.assertEqual((done["outcome"], done["result"]["msg"]), ("ok", "All assertions passed"))
        self.assertEqual(self.call("assert", {"that": True})["outcome"], "ok")

    def test_does_not_hold(self) -> None:
        args = {"that": ["x, y", "z"], "_decided": {"x, y": True, "z": False}}
        done = self.call("assert", args)
        self.assertEqual((done["msg"], done["result"]["assertion"]), ("assertion failed: z", "z"))
        self.assertFalse(done["result"]["evaluated_to"])
        done = self.call("assert", dict(args, fail_msg=["no", "GPU"], quiet=True))
        self.assertEqual((done["msg"], "assertion" in done["result"]), ("no\nGPU", False))

    def test_runs_in_check_mode(self) -> None:
        self.assertEqual(self.call("assert", {"that": False}, check=True)["outcome"], "failed")


class SayTest(ModuleCase):
    def test_fail(self) -> None:
        self.assertEqual(self.call("fail", {"msg": "no GPU"})["msg"], "no GPU")
        self.assertEqual(self.call("fail", {})["outcome"], "failed")

    def test_debug(self) -> None:
        self.assertEqual(self.call("debug", {"msg": [1, {"a": 2}]})["result"]["msg"], [1, {"a": 2}])
        self.assertEqual(self.call("debug", {"var": "x.y", "_value": 3})["result"]["x.y"], 3)
        self.assertEqual(self.call("debug", {})["result"]["msg"], "Hello world!")

    def test_ping(self) -> None:
        self.assertEqual(self.call("ping", {})["result"]["ping"], "pong")
        self.assertEqual(self.call("ping", {"data": "crash"})["outcome"], "failed")

    def test_set_fact(self) -> None:
        done = self.call("set_fact", {"a": 1, "b": {"c": [2]}}, check=True)
        self.assertEqual(done["result"]["ansible_facts"], {"a": 1, "b": {"c": [2]}})
        self.assertIn("'a-b'", self.call("set_fact", {"a-b": 1})["msg"])
        self.assertEqual(self.call("set_fact", {})["outcome"], "failed")


class SetupTest(ModuleCase):
    def test_all_and_filtered(self) -> None:
        facts = self.call("setup", {}, check=True)["result"]["ansible_facts"]
        self.assertEqual(facts["kernel"], os.uname().release)
        root = next(mount for mount in facts["mounts"] if mount["mount"] == "/")
        space = os.statvfs("/")
        self.assertEqual(root["size_total"], space.f_blocks * space.f_frsize)
        self.assertEqual(facts["lo"]["ipv4"]["address"], "127.0.0.1")
        facts = self.call("setup", {"filter": ["ansible_distribution*", "kernel"]})["result"]["ansible_facts"]
        self.assertIn("distribution_version", facts)
        self.assertEqual([name for name in facts if not name.startswith("distribution")], ["kernel"])

    def test_own_facts(self) -> None:
        self.write("site.fact", json.dumps({"rack": 7}))
        self.write("ini.fact", "[place]\nRow = b\n")
        self.write("run.fact", "#!/bin/sh\necho '{\"live\": true}'\n", 0o755)
        self.write("bad.fact", "#!/bin/sh\nexit 3\n", 0o755)
        facts = self.call("setup", {"fact_path": self.folder})["result"]["ansible_facts"]
        self.assertEqual(facts["local"]["site"], {"rack": 7})
        self.assertEqual(facts["local"]["ini"], {"place": {"row": "b"}})
        self.assertEqual(facts["local"]["run"], {"live": True})
        self.assertIn("exit code 3", facts["local"]["bad"])
        self.fails("not-a-directory", "setup", {"fact_path": self.path("none")})


class StatTest(ModuleCase):
    def test_file(self) -> None:
        self.write("f", "four", 0o4750)
        found = self.call("stat", {"path": self.path("f")}, check=True)["result"]["stat"]
        self.assertEqual((found["exists"], found["isreg"], found["isdir"], found["size"]), (True, True, False, 4))
        self.assertEqual((found["mode"], found["isuid"], found["xusr"], found["roth"]), ("4750", True, True, False))
        self.assertEqual((found["pw_name"], found["checksum"]), ("root", hashlib.sha1(b"four").hexdigest()))
        found = self.call("stat", {"path": self.path("f"), "checksum_algorithm": "sha256"})["result"]["stat"]
        self.assertEqual(found["checksum"], hashlib.sha256(b"four").hexdigest())
        found = self.call("stat", {"path": self.path("f"), "get_checksum": False})["result"]["stat"]
        self.assertNotIn("checksum", found)

    def test_absence_is_an_answer(self) -> None:
        for name in ("none", "none/below"):
            self.assertEqual(self.call("stat", {"path": self.path(name)})["result"]["stat"], {"exists": False})

    def test_links(self) -> None:
        self.write("f", "four")
        os.symlink("f", self.path("l"))
        found = self.call("stat", {"path": self.path("l")})["result"]["stat"]
        self.assertEqual((found["islnk"], found["lnk_target"], found["lnk_source"]), (True, "f", self.path("f")))
        self.assertTrue(self.call("stat", {"path": self.path("l"), "follow": True})["result"]["stat"]["isreg"])

    def test_flags_are_those_of_lsattr(self) -> None:
        path = self.write("f", "")
        shown = subprocess.run(["lsattr", "-d", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        found = self.call("stat", {"path": path})["result"]["stat"]
        if shown.returncode == 0:
            letters = shown.stdout.decode().split()[0].replace("-", "")
            self.assertEqual(sorted(found["attr_flags"]), sorted(letters))
        else:  # this file system has none, for us neither
            self.assertNotIn("attr_flags", found)

    def test_what_an_earlier_task_would_change_is_unknown(self) -> None:
        path = self.write("f", "")
        self.pending.add(path)
        self.assertEqual(self.call("stat", {"path": path}, check=True)["outcome"], "unknown")


class WaitTest(ModuleCase):
    def test_path(self) -> None:
        timer = threading.Timer(0.3, self.write, ("f", "ready 42\n"))
        timer.start()
        args = {"path": self.path("f"), "search_regex": r"ready (\d+)", "timeout": 10}
        done = self.call("wait_for", args)
        timer.join()
        self.assertEqual((done["outcome"], done["result"]["match_groups"]), ("ok", ["42"]))
        said = self.fails("timeout", "wait_for", {"path": self.path("f"), "state": "absent", "timeout": 1})
        self.assertIn("is still there", said)

    def test_port(self) -> None:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(5)
            port = server.getsockname()[1]
            self.assertEqual(self.call("wait_for", {"port": port, "timeout": 5})["outcome"], "ok")
            self.fails("timeout", "wait_for", {"port": port, "state": "stopped", "timeout": 1})
        done = self.call("wait_for", {"port": port, "timeout": 1, "msg": "too late"})
        self.assertEqual(done["msg"], "too late")
        self.assertEqual(self.call("wait_for", {"port": port, "state": "stopped", "timeout": 1})["outcome"], "ok")

    def test_time(self) -> None:
        started = time.monotonic()
        self.assertEqual(self.call("wait_for", {"timeout": 1})["outcome"], "ok")
        self.assertGreaterEqual(time.monotonic() - started, 1.0)


class RebootTest(ModuleCase):
    def test_a_kernel_that_refuses_is_said(self) -> None:
        """In a child without any rights: reboot(2) is refused."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                try:
                    reboot._restart()
                except ModuleError as error:
                    os.write(write, ("%s|%s" % (error.code, error.message)).encode())
            finally:
                os._exit(0)
        os.close(write)
        with open(read) as f:
            said = f.read()
        os.waitpid(pid, 0)
        self.assertEqual(said, "reboot-refused|the host cannot reboot itself: Operation not permitted")
        self.assertIsInstance(System(), System)


if __name__ == "__main__":
    unittest.main()
