"""Child processes: what is captured, what is killed, what is waited for."""

from __future__ import annotations

import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.agent.process import OUTPUT_LIMIT_BYTES
from gpuprov.agent.system import System

system = System()


class Run(unittest.TestCase):
    def test_outputs_status_and_environment(self) -> None:
        done = system.run(["sh", "-c", "echo out; echo err >&2; echo $LANG $WORD; exit 3"], env={"WORD": "w"})
        self.assertEqual((done.rc, done.out, done.err), (3, "out\nC.UTF-8 w\n", "err\n"))
        self.assertEqual(done.why, "exit code 3")

    def test_a_missing_program_is_an_error_with_its_name(self) -> None:
        with self.assertRaises(FileNotFoundError) as caught:
            system.run(["/nowhere/program"])
        self.assertEqual(caught.exception.filename, "/nowhere/program")

    def test_stdin_larger_than_a_pipe(self) -> None:
        data = b"x" * 1_000_000
        self.assertEqual(system.run(["wc", "-c"], stdin=data).out.strip(), "1000000")

    def test_stdin_that_nobody_reads(self) -> None:
        self.assertEqual(system.run(["true"], stdin=b"x" * 1_000_000).rc, 0)

    def test_a_hundred_megabytes_stay_small_and_keep_both_ends(self) -> None:
        done = system.run(["sh", "-c", "echo first; yes | head -c 100000000; echo last"])
        self.assertTrue(done.out.startswith("first\n"))
        self.assertTrue(done.out.endswith("last\n"))
        self.assertLess(len(done.out), 2 * OUTPUT_LIMIT_BYTES)
        self.assertGreater(done.dropped, 99_000_000)
        self.assertIn("bytes left out", done.out)

    def test_invalid_utf_8_is_shown_not_lost(self) -> None:
        self.assertEqual(system.run(["printf", "a\\377b"]).out, "a\\xffb")

    def test_a_signal_is_named(self) -> None:
        done = system.run(["sh", "-c", "kill -SEGV $$"])
        self.assertEqual((done.rc, done.why), (-11, "killed by SIGSEGV"))

    def test_a_deadline_ends_the_whole_group(self) -> None:
        marker = "gpuprov-test-%d" % os.getpid()
        started = time.monotonic()
        done = system.run(["sh", "-c", "exec -a %s sleep 60 & sleep 60" % marker], timeout_s=0.5)
        self.assertTrue(done.timed_out)
        self.assertLess(time.monotonic() - started, 30)
        self.assertEqual(system.run(["pgrep", "-f", "^%s" % marker]).out, "")

    def test_who_ignores_term_is_killed(self) -> None:
        done = system.run(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], timeout_s=0.3)
        self.assertTrue(done.timed_out)

    def test_a_daemon_that_keeps_the_pipes_does_not_keep_us(self) -> None:
        started = time.monotonic()
        done = system.run(["sh", "-c", "sleep 60 & echo started"])
        self.assertEqual((done.rc, done.out), (0, "started\n"))
        self.assertLess(time.monotonic() - started, 30)

    def test_lines_come_while_it_runs(self) -> None:
        lines = []
        system.run(["sh", "-c", "echo a; sleep 0.3; printf b"], on_line=lambda s, t: lines.append((s, t, time.time())))
        self.assertEqual([line[:2] for line in lines], [("stdout", "a"), ("stdout", "b")])
        self.assertGreater(lines[1][2] - lines[0][2], 0.2)

    def test_our_descriptors_are_not_inherited(self) -> None:
        read, write = os.pipe()
        inode = "pipe:[%d]" % os.fstat(read).st_ino
        listed = system.run(["ls", "-l", "/proc/self/fd"]).out
        os.close(read)
        os.close(write)
        self.assertIn(" 0 -> pipe:", listed)
        self.assertNotIn(inode, listed)


if __name__ == "__main__":
    unittest.main()
