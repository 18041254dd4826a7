"""What test_service.py runs on a host with systemd. Not a test of its own: it changes the host."""

from __future__ import annotations

import subprocess
import unittest

from tests.support.module_calls import ModuleCase

UNITS = {
    "gp": "[Service]\nExecStart=/bin/sleep 1000\nExecReload=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
    "gpone": "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    # exec: systemctl comes back when the program runs, not before, so that the next look finds it dead
    "gpdies": "[Service]\nType=exec\nExecStart=/bin/sh -c 'echo my reason >&2; exit 4'\nRestart=always\nRestartSec=5\n",
    "gpfails": "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo my reason >&2; exit 4'\n",
}


class InsideSystemd(ModuleCase):
    @classmethod
    def setUpClass(cls) -> None:
        for name, text in UNITS.items():
            with open("/lib/systemd/system/%s.service" % name, "w") as f:
                f.write(text)

    def state(self, name: str) -> str:
        done = subprocess.run(["systemctl", "is-active", name], stdout=subprocess.PIPE, check=False)
        return done.stdout.decode().strip()

    def once(self, action: str, args: dict) -> None:
        before = self.state(args["name"])
        self.assertEqual(self.call(action, args, check=True)["outcome"], "changed")
        self.assertEqual(self.state(args["name"]), before)
        self.pending.clear()
        done = self.call(action, args)
        self.assertEqual(done["outcome"], "changed", done)
        self.assertEqual(self.call(action, args)["outcome"], "ok")

    def test_reading_unit_files_is_no_change(self) -> None:
        self.assertEqual(self.call("systemd", {"daemon_reload": True})["outcome"], "ok")
        self.assertEqual(self.call("systemd", {"daemon_reload": True}, check=True)["outcome"], "ok")

    def test_start_enable_stop(self) -> None:
        args = {"name": "gp", "state": "started", "enabled": True}
        self.once("systemd", dict(args, daemon_reload=True))
        self.assertEqual(self.state("gp"), "active")
        self.assertEqual(self.call("service", args)["outcome"], "ok")
        status = self.call("service", args, registered=True)["result"]["status"]
        self.assertEqual((status["ActiveState"], status["UnitFileState"]), ("active", "enabled"))
        self.once("service", {"name": "gp", "state": "stopped", "enabled": False})
        self.assertEqual(self.state("gp"), "inactive")

    def test_restart_and_reload_act_every_time(self) -> None:
        self.call("service", {"name": "gp", "state": "started"})
        pid = self.pid("gp")
        for _ in range(2):
            self.assertEqual(self.call("service", {"name": "gp", "state": "reloaded"})["outcome"], "changed")
        self.assertEqual(self.pid("gp"), pid)
        self.assertEqual(self.call("service", {"name": "gp", "state": "restarted"})["outcome"], "changed")
        self.assertNotEqual(self.pid("gp"), pid)

    def pid(self, name: str) -> bytes:
        words = ["systemctl", "show", "-p", "MainPID", name]
        return subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout

    def test_mask(self) -> None:
        self.once("systemd", {"name": "gp", "state": "stopped", "masked": True})
        self.fails("service-masked", "systemd", {"name": "gp", "state": "started"})
        self.once("systemd", {"name": "gp", "state": "started", "masked": False})

    def test_one_shot(self) -> None:
        self.assertEqual(self.call("systemd", {"name": "gpone", "state": "started"})["outcome"], "changed")
        self.assertEqual(self.call("systemd", {"name": "gpone", "enabled": True})["outcome"], "ok")  # static

    def test_a_service_that_dies(self) -> None:
        said = self.fails("service-failed", "systemd", {"name": "gpdies", "state": "started"})
        # on a busy machine it has ended before systemctl is through, and then that says so
        self.assertRegex(said, "it ended at once|could not be started")
        self.assertIn("my reason", said)

    def test_a_service_that_cannot_start(self) -> None:
        done = self.call("service", {"name": "gpfails", "state": "started"})
        self.assertIn("gpfails could not be started", done["msg"])
        self.assertIn("my reason", done["msg"])
        self.assertTrue(any("my reason" in line for line in done["result"]["journal"]))

    def test_no_such_service(self) -> None:
        for state in ("started", "stopped"):
            self.fails("service-unknown", "service", {"name": "gpnone", "state": state})
        self.pending.add("package gpnone")
        done = self.call("service", {"name": "gpnone", "state": "started"}, check=True)
        self.assertEqual(done["outcome"], "unknown")

    def test_facts(self) -> None:
        self.assertEqual(self.call("setup", {})["result"]["ansible_facts"]["service_mgr"], "systemd")


if __name__ == "__main__":
    unittest.main()
