from __future__ import annotations

import os
import tempfile
import unittest

from hypothesis import given
from hypothesis import strategies as st

from gpuprov.proof import kernel_log


def log(*begins: float, error: str | None = None, truncated: bool = False) -> dict:
    entries = [{"at_s": at, "text": "line"} for at in begins]
    return {"source": "here", "entries": entries, "truncated": truncated, "error": error}


class Lines(unittest.TestCase):
    def test_records_of_kmsg(self) -> None:
        lines = ["6,0,0,-;Linux version 6.8", " SUBSYSTEM=pci", "3,7,5140900,-;NVRM: Xid (PCI:0000:1b:00): 79", ""]
        entries, first = kernel_log.parsed(lines)
        self.assertEqual(first, 0)
        self.assertEqual([e["at_s"] for e in entries], [0.0, 5.1409])
        self.assertEqual(entries[1]["text"], "NVRM: Xid (PCI:0000:1b:00): 79")

    def test_the_first_number_says_whether_the_beginning_is_there(self) -> None:
        self.assertEqual(kernel_log.parsed(["6,812,5140900,-;late"])[1], 812)

    def test_lines_of_dmesg_and_bare_lines(self) -> None:
        entries, first = kernel_log.parsed(["[   12.500000] NVRM: one", "<6>[  13.0] two", "[Mon Nov 2] three"])
        self.assertEqual([e["at_s"] for e in entries], [12.5, 13.0, None])
        self.assertIsNone(first)

    def test_a_date_is_never_guessed(self) -> None:
        entries, _ = kernel_log.parsed(["Nov 25 22:30:04 node kernel: NVRM: Xid (PCI:0000:1b:00): 79, pid=1"])
        self.assertIsNone(entries[0]["at_s"])

    def test_escapes(self) -> None:
        entries, _ = kernel_log.parsed([r"6,1,2,-;tab\x09 umlaut\xc3\xbc back\x5cslash"])
        self.assertEqual(entries[0]["text"], "tab\t umlaut\u00fc back\\slash")

    @given(st.lists(st.text(max_size=80), max_size=20))
    def test_no_text_is_too_odd(self, lines: list[str]) -> None:
        entries, _ = kernel_log.parsed(lines)
        self.assertLessEqual(len(entries), len(lines))

    @given(st.lists(st.text(max_size=80), max_size=20))
    def test_no_journal_is_too_odd(self, lines: list[str]) -> None:
        self.assertLessEqual(len(kernel_log.journalled(lines)), len(lines))

    def test_the_journal(self) -> None:
        lines = [
            '{"MESSAGE": "Linux version 6.8", "_SOURCE_MONOTONIC_TIMESTAMP": "0", "__MONOTONIC_TIMESTAMP": "4000000"}',
            '{"MESSAGE": [78, 86, 255], "__MONOTONIC_TIMESTAMP": "7250000"}',
            '{"MESSAGE": null}',
            '["no message"]',
        ]
        entries = kernel_log.journalled(lines)
        self.assertEqual([e["at_s"] for e in entries], [0.0, 7.25, None])
        self.assertEqual(entries[1]["text"], "NV\ufffd")


class Choice(unittest.TestCase):
    def test_what_reaches_further_back(self) -> None:
        ring, journal = log(900.0, truncated=True), log(0.0)
        self.assertIs(kernel_log.better(ring, journal), journal)
        self.assertIs(kernel_log.better(ring, log(950.0, truncated=True)), ring)
        self.assertIs(kernel_log.better(ring, log(5.0, truncated=True))["truncated"], True)

    def test_what_can_be_read(self) -> None:
        ring, journal = log(error="no permission"), log(0.0)
        self.assertIs(kernel_log.better(ring, journal), journal)
        self.assertIs(kernel_log.better(log(3.0, truncated=True), log(error="none"))["error"], None)

    def test_neither_is_unknown_and_says_why(self) -> None:
        found = kernel_log.better(log(error="kmsg: no permission"), log(error="no journalctl"))
        self.assertEqual(found["error"], "kmsg: no permission; no journalctl")


class Reading(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name

    def write(self, path: str, text: str) -> None:
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)

    def test_a_host_without_a_log_is_unknown(self) -> None:
        found = kernel_log.read(self.root)
        self.assertEqual(found["entries"], [])
        self.assertIn("dev/kmsg cannot be read: No such file", found["error"])
        self.assertIsNone(found["boot_id"])

    def test_an_empty_log_is_unknown(self) -> None:
        self.write("dev/kmsg", "")
        self.assertIn("no entries", kernel_log.read(self.root)["error"])

    def test_a_log_whose_beginning_was_overwritten(self) -> None:
        self.write("dev/kmsg", "6,4711,99000000,-;late\n")
        found = kernel_log.read(self.root)
        self.assertTrue(found["truncated"])
        self.assertIsNone(found["error"])

    def test_a_rehearsal_host_has_a_log_of_its_own(self) -> None:
        self.write("dev/kmsg", "6,0,0,-;Linux version of the machine below\n")
        self.write(kernel_log.LAB, "[ 10.5] NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus.\n")
        self.write("proc/sys/kernel/random/boot_id", "9ebd511b-d632-472a-96be-4424ce9f8943\n")
        found = kernel_log.read(self.root)
        self.assertEqual([e["at_s"] for e in found["entries"]], [10.5])
        self.assertFalse(found["truncated"])
        self.assertEqual(found["boot_id"], "9ebd511b-d632-472a-96be-4424ce9f8943")

    def test_an_empty_log_of_a_rehearsal_host_is_a_quiet_one(self) -> None:
        self.write(kernel_log.LAB, "")
        found = kernel_log.read(self.root)
        self.assertEqual((found["entries"], found["error"]), ([], None))

    def test_this_machine(self) -> None:
        found = kernel_log.read()
        self.assertEqual(bool(found["entries"]), found["error"] is None)


if __name__ == "__main__":
    unittest.main()
