"""The host's checks on the machine that runs the tests, whatever it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

from gpuprov.proof.check import VERDICTS
from gpuprov.proof.checks import host_processes
from gpuprov.proof.parts import Context
from tests.support.host_tree import Report, parts

#: A parent sleeps in state D until the child that it has made by vfork ends, which is a minute later.
VFORK = "import ctypes, time; ctypes.CDLL(None).vfork(); time.sleep(60)"


class Live(unittest.TestCase):
    def test_every_part_says_something_that_fits_the_wire(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for name, part in parts().items():
                report = Report()
                part.run(Context(scratch=scratch), report)
                self.assertTrue(report.checks, name)
                for found in report.checks:
                    self.assertIn(found["verdict"], VERDICTS)
                    self.assertGreater(len(found["reason"]), 10)
                    self.assertLess(len(json.dumps(found)), 4000)

    def test_a_process_that_really_is_in_state_d_is_found_with_its_place(self) -> None:
        process = subprocess.Popen([sys.executable, "-c", VFORK], start_new_session=True)
        try:
            stat = "/proc/%d/stat" % process.pid
            until = time.monotonic() + 30
            while time.monotonic() < until:
                with open(stat) as f:
                    if f.read().rpartition(")")[2].split()[0] == "D":
                        break
                time.sleep(0.05)
            with mock.patch.object(host_processes, "STILL_S", 0.1):
                stuck = host_processes.read_stuck(Context())
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        found = [task for task in stuck if task.pid == process.pid]
        self.assertEqual(len(found), 1, stuck)
        self.assertTrue(found[0].name)


if __name__ == "__main__":
    unittest.main()
