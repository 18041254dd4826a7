"""The modules `service` and `systemd`: init scripts here, systemd on a host of its own."""

from __future__ import annotations

import os
import re
import subprocess
import unittest

from gpuprov.agent.modules.systemctl import Unit, running
from tests.support.module_calls import ModuleCase, isolated
from tests.support.systemd_host import SystemdHost

try:
    import pytest

    slow = pytest.mark.slow
except ImportError:  # plain unittest runs everything

    def slow(test):
        return test


SCRIPT = """#!/bin/sh
# chkconfig: 2345 80 20
### BEGIN INIT INFO
# Provides: gpd
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
state={0}/running
echo "$1" >> {0}/calls
case "$1" in
start) [ -e {0}/refuse ] && {{ echo "no GPU" >&2; exit 3; }}; touch $state ;;
stop) rm -f $state ;;
status) [ -e $state ] ;;
reload) [ -e $state ] ;;
esac
"""


class InitScriptTest(ModuleCase):
    """On this machine, when systemd does not run; else in a view of it where /run/systemd is hidden."""

    def prepare(self) -> None:
        if running():
            subprocess.run(["mount", "-t", "tmpfs", "hidden", "/run/systemd"], check=True)
        os.makedirs("/etc/init.d", exist_ok=True)
        with open("/etc/init.d/gpd", "w") as f:
            f.write(SCRIPT.format(self.folder))
        os.chmod("/etc/init.d/gpd", 0o755)

    def calls(self) -> list:
        calls = [word for word in self.read("calls").split() if word != "status"]
        os.unlink(self.path("calls"))
        return calls

    @isolated("/etc")
    def test_start_stop(self) -> None:
        self.prepare()
        started = {"name": "gpd", "state": "started"}
        self.assertEqual(self.call("service", started, check=True)["outcome"], "changed")
        self.pending.clear()
        self.assertEqual(self.call("service", started)["outcome"], "changed")
        self.assertEqual(self.call("service", started)["outcome"], "ok")
        self.assertEqual(self.calls(), ["start"])
        self.assertEqual(self.call("service", {"name": "gpd", "state": "restarted"})["outcome"], "changed")
        self.assertEqual(self.call("service", {"name": "gpd", "state": "reloaded"})["outcome"], "changed")
        self.assertEqual(self.calls(), ["stop", "start", "reload"])
        self.assertEqual(self.call("service", {"name": "gpd", "state": "stopped"})["outcome"], "changed")
        self.assertEqual(self.call("service", {"name": "gpd", "state": "stopped"})["outcome"], "ok")
        self.assertEqual(self.calls(), ["stop"])

    @isolated("/etc", "/var")
    def test_at_boot(self) -> None:
        self.prepare()
        for wanted in (True, False):
            args = {"name": "gpd", "enabled": wanted}
            self.assertEqual(self.call("service", args)["outcome"], "changed")
            self.assertEqual(any(name.endswith("gpd") for name in os.listdir("/etc/rc3.d") if name[0] == "S"), wanted)
            self.assertEqual(self.call("service", args)["outcome"], "ok")

    @isolated("/etc")
    def test_refusals(self) -> None:
        self.prepare()
        self.write("refuse", "")
        self.assertIn("no GPU", self.fails("service-failed", "service", {"name": "gpd", "state": "started"}))
        said = self.fails("service-unknown", "service", {"name": "gpnone", "state": "started"})
        self.assertIn("systemd is not running on this host", said)
        self.pending.add("package gpnone")
        self.assertEqual(self.call("service", {"name": "gpnone", "state": "started"}, check=True)["outcome"], "unknown")
        self.fails("no-systemd", "systemd", {"name": "gpd", "state": "started"})


class UnitTest(unittest.TestCase):
    """The meaning of systemd's words."""

    def test_enabled(self) -> None:
        for word, enabled, disabled in (
            ("enabled", True, False),
            ("enabled-runtime", True, False),
            ("disabled", False, True),
            ("linked", False, True),
            ("static", True, True),
            ("indirect", True, True),
        ):
            unit = Unit({"LoadState": "loaded", "UnitFileState": word})
            self.assertEqual((unit.enabled_as(True), unit.enabled_as(False)), (enabled, disabled), word)

    def test_a_crash_loop_does_not_run(self) -> None:
        unit = Unit({"LoadState": "loaded", "ActiveState": "activating", "SubState": "auto-restart"})
        self.assertFalse(unit.runs)
        self.assertEqual(unit.state, "activating (auto-restart)")


@slow
class SystemdTest(unittest.TestCase):
    def test_on_a_host_with_systemd(self) -> None:
        with SystemdHost() as host:
            done = host.python("-m", "unittest", "tests.agent.modules.inside_systemd")
        said = done.stdout.decode()
        self.assertEqual(done.returncode, 0, said)
        self.assertGreaterEqual(int(re.search(r"Ran (\d+) tests", said).group(1)), 9)


if __name__ == "__main__":
    unittest.main()
