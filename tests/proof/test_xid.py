from __future__ import annotations

import unittest
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from gpuprov.proof.checks import xid, xid_table
from gpuprov.proof.parts import Context
from tests.support.readings import Host

PCI = "0000:1b:00.0"
ACTIONS = ("none", "monitor", "restart job", "reset GPU", "reboot", "isolate")


def line(code: int, text: str = "pid=4242, name=python", pci: str = "0000:1b:00") -> str:
    return f"NVRM: Xid (PCI:{pci}): {code}, {text}"


def log(*texts: str, truncated: bool = False, error: str | None = None, every_s: float = 100.0) -> dict:
    entries = [{"at_s": number * every_s, "text": text} for number, text in enumerate(texts)]
    return {"source": "/dev/kmsg", "boot_id": "b", "entries": entries, "truncated": truncated, "error": error}


def told(*texts: str) -> list[tuple]:
    """Return kind, verdict, device and action of what needs something done."""
    found = [item for item in xid.judge(log(*texts)) if item["verdict"] not in ("pass", "skip")]
    return [(item["name"], item["verdict"], item["device"], item["action"]) for item in found]


class When(unittest.TestCase):
    def test_a_person_is_told_how_long_ago(self) -> None:
        its = log(line(79), line(79), every_s=3600.0)
        for now_s, when in ((3600.0 * 6.5, "5.5 h ago"), (3660.0, "60 s ago"), (None, "in minute 60 since boot")):
            told_of = next(one for one in xid.judge(dict(its, now_s=now_s)) if one["verdict"] == "fail")
            self.assertIn(f"XID 79 on {PCI} in 2 different minutes, last {when}: ", told_of["reason"])


class Catalogue(unittest.TestCase):
    def test_every_code_has_an_entry_and_every_resolution_a_meaning(self) -> None:
        for code in range(1, xid_table.LAST_CODE + 1):
            meaning, resolution = xid_table.entry(code)
            self.assertTrue(meaning)
            verdict, action, advice = xid_table.RESOLUTIONS[resolution]
            self.assertIn(verdict, ("pass", "warn", "fail"))
            self.assertIn(action, ACTIONS)
            self.assertTrue(advice)
        used = {resolution for _, resolution in xid_table.XIDS.values()}
        self.assertEqual(used, set(xid_table.RESOLUTIONS))

    def test_codes_by_resolution(self) -> None:
        for resolution, text in (
            ("RESTART_APP", "8 11 13 25 31 32 39-41 60 68-72 75-77 80 82-86 88 89 94 96-105 126-135 139"),
            ("IGNORE", "14 37 38 43 44 63 66 67 92 93 106-108 121 137 141 152 153 157 160 161"),
            ("RESET_GPU", "46 62 64 95 109 110 119 120 136 140 143 155 156 158"),
            ("WORKFLOW_NVLINK5_ERR", "144-150"),
        ):
            ends = [word.partition("-")[::2] for word in text.split()]
            codes = {code for first, last in ends for code in range(int(first), int(last or first) + 1)}
            its = {code for code in range(1, 173) if xid_table.entry(code)[1] == resolution}
            self.assertEqual(its, codes, resolution)

    def test_a_code_that_came_later_is_shown(self) -> None:
        self.assertEqual(told(line(999)), [("xid", "warn", PCI, "monitor")])
        self.assertIn("not in NVIDIA's catalogue of 2025-10-29", xid.judge(log(line(999)))[0]["reason"])

    @given(st.integers(0, 10**6), st.text(max_size=60))
    def test_no_line_is_too_odd(self, code: int, text: str) -> None:
        for kind in ("xid", "sxid"):
            verdict, action, meaning = xid.judged(kind, code, text)
            self.assertIn(verdict, ("pass", "warn", "fail"))
            self.assertIn(action, ACTIONS)
            self.assertTrue(meaning)


class Verdicts(unittest.TestCase):
    def test_by_the_catalogue(self) -> None:
        for code, verdict, action in (
            (13, "warn", "restart job"),
            (31, "warn", "restart job"),
            (45, "warn", "restart job"),
            (48, "fail", "reset GPU"),
            (54, "fail", "isolate"),
            (62, "fail", "reset GPU"),
            (64, "fail", "reset GPU"),
            (74, "fail", "reset GPU"),
            (79, "fail", "reboot"),
            (95, "fail", "reset GPU"),
            (119, "fail", "reset GPU"),
            (145, "warn", "monitor"),
            (151, "fail", "reboot"),
            (168, "warn", "reboot"),
            (12, "warn", "monitor"),
        ):
            self.assertEqual(told(line(code)), [("xid", verdict, PCI, action)], code)

    def test_those_to_ignore_are_counted(self) -> None:
        found = xid.judge(log(line(63), line(63), line(92), line(43)))
        self.assertEqual([item["verdict"] for item in found], ["pass", "pass"])
        self.assertIn("63 on 0000:1b:00.0 (2x), 92 on", found[0]["reason"])
        self.assertEqual(found[0]["measured"], 4)

    def test_154_is_obeyed_to_the_letter(self) -> None:
        for text, expected in (
            ("GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)", ("fail", "reset GPU")),
            ("GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)", ("fail", "reboot")),
            ("GPU recovery action changed from 0x0 (None) to 0x7 (System Reboot)", ("fail", "reboot")),
            ("GPU recovery action changed from 0x0 (None) to 0x6 (Bus Reset)", ("fail", "reset GPU")),
            ("GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)", ("fail", "reset GPU")),
            ("GPU recovery action changed from 0x0 (None) to 0x3 (Drain P2P)", ("fail", "reset GPU")),
            ("GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)", ("pass", "none")),
            ("something else", ("warn", "monitor")),
        ):
            self.assertEqual(xid.judged("xid", 154, text)[:2], expected, text)

    def test_the_last_154_counts(self) -> None:
        reset = line(154, "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)")
        well = line(154, "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)")
        self.assertEqual(told(reset, well), [])
        self.assertEqual(told(well, reset), [("xid", "fail", PCI, "reset GPU")])

    def test_nvlink5_by_its_severity(self) -> None:
        fatal = "NETIR_LINK_EVT  Fatal   XC0 i0 Link 00 (0x004505c6 0x00000000)"
        self.assertEqual(xid.judged("xid", 149, fatal)[:2], ("fail", "reset GPU"))
        self.assertEqual(xid.judged("xid", 149, fatal.replace("Fatal", "Nonfatal"))[:2], ("warn", "monitor"))
        self.assertEqual(xid.judged("xid", 149, "")[:2], ("warn", "monitor"))

    def test_nvswitch(self) -> None:
        fatal = "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up"
        mild = "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 11004, Non-fatal, Link 46 ingress invalid ACL"
        self.assertEqual(told(fatal), [("sxid", "fail", "0000:c1:00.0", "reboot")])
        self.assertEqual(told(mild), [("sxid", "warn", "0000:c1:00.0", "monitor")])
        self.assertEqual(told(mild, line(74))[1], ("sxid", "fail", "0000:c1:00.0", "reboot"))


class Over(unittest.TestCase):
    DAYS = 30 * 86400.0

    def told(self, *entries: tuple[float, str], truncated: bool = False) -> list[tuple]:
        its = dict(log(truncated=truncated), entries=[{"at_s": at, "text": text} for at, text in entries])
        found = xid.judge(dict(its, now_s=self.DAYS))
        return [(item["name"], item["verdict"], item["reason"]) for item in found]

    def test_what_a_job_did_more_than_a_day_ago_is_told_and_not_judged(self) -> None:
        for code in (13, 31, 45, 94, 145):
            (name, verdict, reason), _ = self.told((100.0, line(code, "x")))
            self.assertEqual((name, verdict), ("xid", "pass"), code)
            self.assertIn(f"{code} on {PCI} (1x), more than a day ago", reason)
            self.assertEqual(self.told((self.DAYS - 3600.0, line(code, "x")))[0][1], "warn", code)
        self.assertEqual(self.told((100.0, line(79)))[0][1], "fail")
        self.assertEqual(self.told((100.0, line(48)))[0][1], "fail")
        self.assertEqual(self.told((100.0, line(168)))[0][1], "warn")

    def test_an_error_that_a_switch_survived_is_no_news_a_day_later(self) -> None:
        mild = "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20009, Non-fatal, Link 46 RX Short Error Rate"
        self.assertEqual(self.told((100.0, mild))[1][1], "pass")
        self.assertEqual(self.told((100.0, mild.replace("Non-fatal", "Fatal")))[1][1], "fail")

    def test_what_a_reset_has_cured(self) -> None:
        loaded = "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build"
        well = line(154, "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)")
        for cure in (loaded, well):
            found = self.told((100.0, line(119)), (200.0, cure))
            self.assertEqual([item[1] for item in found], ["pass", "pass"])
            self.assertIn("119 on 0000:1b:00.0 (1x), before the GPU was reset", found[0][2])
            self.assertEqual(self.told((100.0, cure), (200.0, line(119)))[0][1], "fail")
            self.assertEqual(self.told((100.0, line(119)), (101.0, cure), (102.0, line(119)))[0][1], "fail")
            self.assertEqual(self.told((100.0, line(79)), (200.0, cure))[0][1], "fail")
        other = line(154, "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)", "0000:9b:00")
        self.assertEqual(self.told((100.0, line(119)), (200.0, other))[0][1], "fail")

    def test_a_log_whose_beginning_is_lost_tells_how_far_back_it_goes(self) -> None:
        found = self.told((self.DAYS - 7 * 86400.0, "usb 1-1: new"), truncated=True)
        self.assertEqual([item[1] for item in found], ["pass", "pass"])
        self.assertIn("no XID in the last 168 h, as far back as the kernel's log goes, that needs", found[0][2])
        found = self.told((self.DAYS - 3600.0, "usb 1-1: new"), truncated=True)
        self.assertEqual([item[1] for item in found], ["unknown", "unknown"])


class Lines(unittest.TestCase):
    def test_a_slice_of_a_gpu(self) -> None:
        (event,) = xid.events(
            log("NVRM: Xid (PCI:0000:1b:00 GPU-I:05): 94, pid=7194, Contained: CE User Channel (0x9).")
        )
        self.assertEqual((event["pci"], event["code"]), (PCI, 94))

    def test_a_process_that_is_not_known(self) -> None:
        (event,) = xid.events(
            log("NVRM: Xid (PCI:0000:1b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off")
        )
        self.assertEqual(event["code"], 79)

    def test_an_nvswitch_error_in_several_lines_is_as_bad_as_the_line_that_says_so(self) -> None:
        start = "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 24007, "
        rest = ("Severity 1 Engine instance 46 Sub-engine instance 00", "Data {0x00140004, 0x00100000, 0x00000000}")
        its = log(start + "Fatal, Link 46 sourcetrack timeout", *(start + text for text in rest), every_s=0.1)
        self.assertEqual([item["verdict"] for item in xid.judge(its)], ["pass", "fail", "pass"])
        fatal, mild = (line(149, f"NETIR_LINK_EVT {word} XC0 i0 Link 00") for word in ("Fatal", "Nonfatal"))
        for every_s in (0.1, 100.0):
            found = xid.judge(log(fatal, mild, every_s=every_s))
            self.assertEqual((found[0]["verdict"], found[0]["action"]), ("fail", "reset GPU"))

    def test_other_lines_are_none(self) -> None:
        self.assertEqual(xid.events(log("NVRM: GPU 0000:1b:00.0: RmInitAdapter failed!", "Xid 79", "usb 1-1: new")), [])

    def test_addresses(self) -> None:
        for pci in ("0000:1b:00", "0000:1B:00.0"):
            self.assertEqual(xid.events(log(line(79, pci=pci)))[0]["pci"], PCI)
        self.assertEqual(xid.events(log("NVRM: Xid (0000:1b:00): 79, GPU has fallen"))[0]["pci"], PCI)
        self.assertEqual(xid.events(log("NVRM: Xid (PCI:0018:01:00): 79"))[0]["pci"], "0018:01:00.0")

    @given(st.lists(st.sampled_from([13, 31, 79]), max_size=30))
    def test_one_event_for_each_minute_of_each_code(self, codes: list[int]) -> None:
        texts = [line(code) for code in codes]
        self.assertEqual(len(xid.events(log(*texts, every_s=0.5))), len(set(codes)))
        self.assertEqual(len(xid.events(log(*texts, every_s=61.0))), len(codes))
        self.assertEqual(sum(event["count"] for event in xid.events(log(*texts, every_s=0.5))), len(codes))

    def test_a_flood_is_one_check(self) -> None:
        found = xid.judge(log(*[line(31)] * 5000))
        self.assertEqual(len(found), 3)
        self.assertIn("in 5000 different minutes", found[0]["reason"])
        self.assertLessEqual(len(found[0]["data"]["evidence"]), 3)


class Unknown(unittest.TestCase):
    def test_a_log_that_cannot_be_read(self) -> None:
        found = xid.judge(log(error="/dev/kmsg cannot be read: Operation not permitted"))
        self.assertEqual([item["verdict"] for item in found], ["unknown", "unknown"])
        self.assertIn("Operation not permitted", found[0]["reason"])

    def test_a_log_without_its_beginning_is_not_quiet(self) -> None:
        found = xid.judge(log("usb 1-1: new", truncated=True))
        self.assertEqual([item["verdict"] for item in found], ["unknown", "unknown"])
        found = xid.judge(log(line(79), truncated=True))
        self.assertEqual([item["verdict"] for item in found], ["fail", "pass", "unknown"])

    def test_a_host_without_gpus(self) -> None:
        self.assertEqual([item["verdict"] for item in xid.judge(log("quiet"), has_gpus=False)], ["skip", "skip"])

    def test_over_a_host(self) -> None:
        with TemporaryDirectory() as folder:
            host = Host(folder).healthy(1)
            host.write("etc/gpuprov-lab/kmsg", line(79, "GPU has fallen off the bus.") + "\n")
            self.assertEqual([event["code"] for event in xid.seen(folder) or []], [79])
            host.write(f"proc/driver/nvidia/gpus/{PCI}/information", "Model: x\nGPU UUID: \t GPU-0a1b-2c\n")
            found: list = []
            report = type("Report", (), {"check": staticmethod(found.append), "stage": staticmethod(str)})
            xid.run(Context(root=folder), report)
            self.assertEqual(
                [(i["name"], i["verdict"], i["action"]) for i in found],
                [("xid", "fail", "reboot"), ("xid", "pass", "none"), ("sxid", "pass", "none")],
            )
            self.assertEqual(found[0]["data"]["uuid"], "GPU-0a1b-2c")
            (host.root / "etc/gpuprov-lab/kmsg").unlink()
            self.assertIsNone(xid.seen(folder))


if __name__ == "__main__":
    unittest.main()
