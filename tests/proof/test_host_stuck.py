"""Processes that wait for the kernel."""

from __future__ import annotations

import unittest
from unittest import mock

from gpuprov.proof.checks import host_processes
from tests.support.host_tree import healthy, one, task


class Stuck(unittest.TestCase):
    def setUp(self) -> None:
        self.tree = healthy(self)
        patched = mock.patch.object(host_processes, "STILL_S", 0.0)
        patched.start()
        self.addCleanup(patched.stop)

    def test_a_process_in_state_d(self) -> None:
        found = one(task(self.tree, 77, "dd (odd) name", "D", "io_schedule"), "processes.stuck")
        self.assertEqual((found["verdict"], found["action"]), ("warn", "monitor"))
        self.assertIn("dd (odd) name (pid 77, thread 77) in io_schedule", found["reason"])

    def test_nvidias_driver_fails(self) -> None:
        found = one(task(self.tree, 78, "python3", "D", "uvm_va_space_mm"), "processes.stuck")
        self.assertEqual((found["verdict"], found["action"]), ("fail", "reboot"))

    def test_one_that_ran_between_is_only_busy(self) -> None:
        task(self.tree, 79, "cp", "D", "io_schedule")

        def works(_):
            task(self.tree, 79, "cp", "D", "io_schedule", switches=6)

        with mock.patch.object(host_processes.time, "sleep", works):
            self.assertEqual(one(self.tree, "processes.stuck")["verdict"], "pass")

    def test_zombies(self) -> None:
        found = host_processes.judge_zombies(host_processes.Zombies(3000, ("sh",) * 2100))[0]
        self.assertEqual((found["verdict"], found["action"]), ("fail", "reboot"))
        self.assertIn("most of them sh", found["reason"])
        self.assertEqual(one(task(self.tree, 80, "sh", "Z"), "processes.zombies")["measured"], 1)


if __name__ == "__main__":
    unittest.main()
