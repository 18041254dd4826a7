"""The host's lock: one run at a time, told apart when it lives, was interrupted, or never began."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.agent.launch import harmless
from gpuprov.agent.lock import Lock, Locked, describe, holder, in_the_way
from tests.support.agent_process import REPO

HOLD = """
import sys, time
sys.path.insert(0, %r)
from gpuprov.agent.lock import Lock
lock = Lock(%r)
lock.take({"run": %r, "owner": "somebody", "since": 0})
if %r:
    lock.begin()
print("held", flush=True)
time.sleep(60)
"""


class LockCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def other(self, run: str, begun: bool) -> subprocess.Popen:
        """Start another process that holds the lock."""
        script = HOLD % (REPO, self.folder, run, begun)
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), b"held\n")
        return process

    def end(self, process: subprocess.Popen) -> None:
        process.kill()
        process.wait()

    def lock(self, run: str, force: bool = False) -> Lock:
        lock = Lock(self.folder)
        lock.take({"run": run, "since": 0}, force)
        return lock

    def test_a_living_run_keeps_others_away_also_by_force(self) -> None:
        self.other("r1", begun=True)
        for force in (False, True):
            with self.assertRaises(Locked) as caught:
                self.lock("r2", force)
            self.assertTrue(caught.exception.alive)
            self.assertEqual(caught.exception.owner["owner"], "somebody")
        self.assertEqual(holder(self.folder)[0]["run"], "r1")
        self.assertIn("busy with run r1 of somebody", describe(*holder(self.folder))["message"])

    def test_an_interrupted_run_keeps_the_host_until_it_goes_on_or_is_given_up(self) -> None:
        self.end(self.other("r1", begun=True))
        self.assertEqual((holder(self.folder)[0]["run"], holder(self.folder)[1]), ("r1", False))
        with self.assertRaises(Locked) as caught:
            self.lock("r2")
        self.assertFalse(caught.exception.alive)
        self.assertIn("gpuprov resume r1", describe(caught.exception.owner, False)["hint"])
        lock = self.lock("r1")  # the run itself goes on; it stays interrupted when that fails
        lock.give_up()
        self.assertEqual(holder(self.folder)[0]["run"], "r1")
        self.lock("r2", force=True).give_up()
        self.assertEqual(holder(self.folder), ({}, False))

    def test_an_interrupted_proof_holds_nothing_once_its_processes_are_gone(self) -> None:
        lock = self.lock("r1")
        lock.begin(harmless=True)
        self.assertEqual(in_the_way(self.folder)[1], True)  # its runner lives
        lock.let_go()
        self.assertEqual(holder(self.folder)[0]["run"], "r1")  # so that the run itself can go on
        script = "import time; print('up', flush=True); time.sleep(60)"
        argv = [sys.executable, "-c", script, "-m", "gpuprov.proof"]
        left = subprocess.Popen(argv, stdout=subprocess.PIPE)
        self.addCleanup(left.stdout.close)
        self.addCleanup(left.wait)
        self.addCleanup(left.kill)
        self.assertEqual(left.stdout.readline(), b"up\n")
        self.assertEqual((in_the_way(self.folder)[0]["run"], in_the_way(self.folder)[1]), ("r1", True))
        with self.assertRaises(Locked) as caught:
            self.lock("r2")
        self.assertTrue(caught.exception.alive)

    def test_an_interrupted_proof_gives_way_to_the_next(self) -> None:
        lock = self.lock("r1")
        lock.begin(harmless=True)
        lock.let_go()
        with mock.patch("gpuprov.agent.lock._proof_goes_on", return_value=False):
            self.assertEqual(in_the_way(self.folder), ({}, False))
        with mock.patch("gpuprov.agent.lock._proof_goes_on", return_value=None):  # it cannot be told
            self.assertEqual((in_the_way(self.folder)[0]["run"], in_the_way(self.folder)[1]), ("r1", False))
        with mock.patch("gpuprov.agent.lock._proof_goes_on", return_value=False):
            lock = self.lock("r2")
        lock.begin()  # this one changes things
        lock.let_go()
        self.assertEqual(in_the_way(self.folder)[0]["run"], "r2")
        with self.assertRaises(Locked):
            self.lock("r3")

    def test_a_plan_is_harmless_when_all_it_does_is_to_look(self) -> None:
        def plan(*nodes: dict) -> dict:
            return {"plays": [{"nodes": list(nodes), "handlers": []}]}

        look, change = {"id": "1", "action": "gpuprov_proof"}, {"id": "2", "action": "command"}
        self.assertTrue(harmless(plan(look, {"kind": "block", "block": [look]})))
        self.assertFalse(harmless(plan(look, {"kind": "block", "block": [look], "always": [change]})))
        self.assertFalse(harmless({"plays": [{"nodes": [look], "handlers": [change]}]}))

    def test_a_run_that_never_began_holds_nothing(self) -> None:
        self.end(self.other("r1", begun=False))
        self.assertEqual(holder(self.folder), ({}, False))
        self.lock("r2").give_up()

    def test_a_process_of_the_same_run_that_waits_for_files_gives_way(self) -> None:
        """Its connection is dead, which it cannot know."""
        waiting = self.other("r1", begun=False)
        self.lock("r1").give_up()
        self.assertEqual(waiting.wait(5), -9)

    def test_a_process_of_another_run_that_waits_for_files_does_not(self) -> None:
        waiting = self.other("r1", begun=False)
        with self.assertRaises(Locked):
            self.lock("r2")
        self.assertIsNone(waiting.poll())

    def test_a_number_that_belongs_to_somebody_else_by_now_is_left_alone(self) -> None:
        bystander = subprocess.Popen(["sleep", "60"])
        self.addCleanup(bystander.wait)
        self.addCleanup(bystander.kill)
        lock = self.lock("r1")
        lock._write({"run": "r1", "begun": False, "pid": bystander.pid})
        with self.assertRaises(Locked):
            self.lock("r1")
        self.assertIsNone(bystander.poll())
        lock.let_go()

    def test_who_only_looks_locks_nobody_out(self) -> None:
        stop = threading.Event()

        def look() -> None:
            while not stop.is_set():
                holder(self.folder)

        self.lock("r0").give_up()
        lookers = [threading.Thread(target=look) for _ in range(3)]
        for looker in lookers:
            looker.start()
        try:
            for number in range(50):
                lock = self.lock("r%d" % number)
                lock.clear()
                lock.let_go()
        finally:
            stop.set()
            for looker in lookers:
                looker.join()

    def test_an_ended_run_that_tidies_up_is_waited_for(self) -> None:
        lock = self.lock("r1")
        lock.begin()
        lock.clear()
        self.assertEqual(holder(self.folder)[0], {})
        threading.Timer(0.5, lock.let_go).start()
        started = time.monotonic()
        self.lock("r2").give_up()
        self.assertGreater(time.monotonic() - started, 0.3)

    def test_a_lock_file_that_a_power_cut_tore_still_holds(self) -> None:
        with open(os.path.join(self.folder, "lock"), "w") as f:
            f.write('{"run": "r1", "ow')
        with self.assertRaises(Locked):
            self.lock("r2")
        self.lock("r2", force=True).give_up()

    def test_the_lock_lives_as_long_as_who_inherited_it(self) -> None:
        lock = self.lock("r1")
        lock.begin()
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        os.close(read)
        lock.let_go()
        self.assertTrue(holder(self.folder)[1])
        os.close(write)
        os.waitpid(pid, 0)
        self.assertFalse(holder(self.folder)[1])


if __name__ == "__main__":
    unittest.main()
