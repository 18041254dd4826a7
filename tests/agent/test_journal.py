"""The journal: numbered, cut where a power cut tore it, bounded, and honest about a full disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.agent import journal as j
from gpuprov.agent.journal import Journal, JournalFull


class JournalCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "journal")

    def journal(self, **more: object) -> Journal:
        journal = Journal(self.path, **more)
        self.addCleanup(os.close, journal._fd)
        return journal

    def events(self) -> list:
        with open(self.path) as f:
            return [json.loads(line) for line in f]


class Numbers(JournalCase):
    def test_events_are_numbered_from_one(self) -> None:
        journal = self.journal()
        for _ in range(3):
            journal.write("TaskOutput", text="x")
        self.assertEqual([e["seq"] for e in self.events()], [1, 2, 3])
        self.assertEqual(self.events()[0]["t"], "event")

    def test_a_later_writer_goes_on_after_the_last(self) -> None:
        self.journal().write("RunStarted")
        later = self.journal()
        self.assertEqual([e["kind"] for e in later.recover()], ["RunStarted"])
        later.write("Resumed")
        self.assertEqual([e["seq"] for e in self.events()], [1, 2])

    def test_numbers_that_a_reader_saw_before_a_power_cut_are_not_given_again(self) -> None:
        self.journal().write("RunStarted")
        later = self.journal()
        later.recover(at_least=7)
        later.write("Resumed")
        again = self.journal()
        self.assertEqual([e["seq"] for e in again.recover()], [1, 8])
        again.write("Resumed")
        self.assertEqual(self.events()[-1]["seq"], 9)

    def test_a_journal_that_vanished(self) -> None:
        journal = self.journal()
        self.assertEqual(journal.recover(at_least=4), [])
        journal.write("Resumed")
        self.assertEqual(self.events()[0]["seq"], 5)


class PowerCuts(JournalCase):
    def torn(self, tail: bytes) -> list:
        """Return the kinds of events that are found behind a journal with this end."""
        if os.path.exists(self.path):
            os.unlink(self.path)
        journal = self.journal()
        journal.write("RunStarted")
        journal.write("TaskStarted", id="t1")
        with open(self.path, "ab") as f:
            f.write(tail)
        later = self.journal()
        kinds = [e["kind"] for e in later.recover()]
        later.write("Resumed")
        self.assertEqual([e["kind"] for e in self.events()], [*kinds, "Resumed"])
        return kinds

    def test_half_a_line(self) -> None:
        self.assertEqual(self.torn(b'{"t":"event","seq":3,"ki'), ["RunStarted", "TaskStarted"])

    def test_a_whole_line_without_its_end(self) -> None:
        line = b'{"t":"event","seq":3,"at":1,"kind":"TaskFinished"}'
        self.assertEqual(self.torn(line), ["RunStarted", "TaskStarted"])
        self.assertEqual(self.torn(line + b"\n")[-1], "TaskFinished")

    def test_zeros(self) -> None:
        self.assertEqual(self.torn(bytes(5000)), ["RunStarted", "TaskStarted"])

    def test_what_is_json_and_no_event(self) -> None:
        for tail in (b"3\n", b"[]\n", b'{"seq":3}\n', b'{"seq":"3","kind":"x"}\n', b'{"seq":1,"kind":"x"}\n'):
            self.assertEqual(self.torn(tail), ["RunStarted", "TaskStarted"])

    def test_what_a_synced_event_rests_on_is_synced_before_it(self) -> None:
        with open(os.path.join(self.folder, "plan.json"), "w") as f:
            f.write("{}")
        script = (
            "from gpuprov.agent.journal import Journal\n"
            "j = Journal(%r, sync_with=(%r,))\n"
            "j.write('RunStarted'); j.write('TaskStarted', sync=True); j.write('TaskStarted', sync=True)"
        ) % (self.path, os.path.join(self.folder, "plan.json"))
        if shutil.which("strace") is None:
            self.skipTest("strace is not installed")
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        words = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync", sys.executable, "-c", script]
        done = subprocess.run(words, stderr=subprocess.PIPE, cwd=root, check=True)
        calls = [line for line in done.stderr.decode().splitlines() if "sync(" in line]
        names = [os.path.basename(line.split("<", 1)[1].split(">", 1)[0]) for line in calls]
        self.assertEqual(names, ["plan.json", os.path.basename(self.folder), "journal", "journal"])


class Bounds(JournalCase):
    def test_a_long_result_is_cut_and_stays_an_event(self) -> None:
        journal = self.journal()
        journal.write("TaskFinished", id="t1", outcome="ok", result={"stdout": "a" * 3_000_000 + "end", "rc": 0})
        event = self.events()[0]
        self.assertLess(os.path.getsize(self.path), j.EVENT_LIMIT_BYTES)
        self.assertTrue(event["result"]["stdout"].endswith("end"))
        self.assertIn("letters left out", event["result"]["stdout"])
        self.assertEqual((event["outcome"], event["result"]["rc"]), ("ok", 0))

    def test_a_result_of_many_small_parts(self) -> None:
        journal = self.journal()
        many = {str(n): "x" * 100 for n in range(50_000)}
        journal.write("TaskFinished", id="t1", outcome="failed", msg="why", result=many)
        event = self.events()[0]
        self.assertLess(os.path.getsize(self.path), j.EVENT_LIMIT_BYTES)
        self.assertEqual((event["outcome"], event["msg"]), ("failed", "why"))
        self.assertIn("left_out", event["result"])

    def test_a_long_journal_takes_only_short_events(self) -> None:
        journal = self.journal()
        journal._size = j.JOURNAL_LIMIT_BYTES
        journal.write("TaskFinished", id="t1", outcome="ok", result={"stdout": "a" * 200_000})
        self.assertLess(os.path.getsize(self.path), 10_000)

    def test_values_that_are_no_json(self) -> None:
        journal = self.journal()
        journal.write("TaskFinished", id="t1", result={"when": {1, 2}, (1, 2): b"x", 3: "three"})
        self.assertEqual(self.events()[0]["result"]["3"], "three")


class FullDisk(JournalCase):
    """On a file system of 1 MiB that is really full."""

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0 or shutil.which("mount") is None:
            self.skipTest("needs root, to mount a small file system")
        self.disk = os.path.join(self.folder, "disk")
        os.mkdir(self.disk)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", self.disk], check=False).returncode:
            self.skipTest("this machine does not let us mount")
        self.addCleanup(subprocess.run, ["umount", self.disk], check=True)
        self.path = os.path.join(self.disk, "journal")

    def fill(self) -> None:
        fd = os.open(os.path.join(self.disk, "filler"), os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                os.write(fd, bytes(4096))
        except OSError:
            os.close(fd)

    def small_journal(self) -> Journal:
        journal = Journal(self.path)
        self.addCleanup(os.close, journal._fd)
        journal.reserve()
        return journal

    def test_space_is_reserved_and_used_for_the_last_events(self) -> None:
        journal = self.small_journal()
        journal.write("RunStarted")
        self.fill()
        self.assertFalse(journal.low)
        while not journal.low:
            journal.write("TaskOutput", id="t1", text="x" * 1000)
        journal.write("TaskFinished", id="t1", outcome="ok", result={"stdout": "y" * 100_000})
        with open(self.path) as f:
            events = [json.loads(line) for line in f]
        self.assertEqual(events[-1]["outcome"], "ok")
        self.assertEqual([e["seq"] for e in events], list(range(1, len(events) + 1)))

    def test_when_even_the_reserve_is_used_up_nothing_half_written_stays(self) -> None:
        journal = self.small_journal()
        self.fill()
        with self.assertRaises(JournalFull):
            while True:
                journal.write("TaskOutput", id="t1", text="x" * 1000)
        with open(self.path, "rb") as f:
            self.assertTrue(f.read().endswith(b"\n"))

    def test_no_space_to_reserve(self) -> None:
        self.fill()
        journal = Journal(self.path)
        self.addCleanup(os.close, journal._fd)
        with self.assertRaises(JournalFull):
            journal.reserve()
        self.assertEqual(sorted(os.listdir(self.disk)), ["filler", "journal"])


if __name__ == "__main__":
    unittest.main()
