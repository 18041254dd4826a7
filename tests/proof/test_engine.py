"""The engine: which parts run where, what hangs, what is skipped, what is planted."""

from __future__ import annotations

import tempfile
import time
import unittest
from typing import ClassVar

from gpuprov.proof import canaries, engine, registry, worker
from gpuprov.proof.check import check
from gpuprov.proof.output import Output
from gpuprov.proof.parts import TIERS, Context, Part, chosen


class Kept(Output):
    """An output that keeps messages."""

    def __init__(self) -> None:
        super().__init__(True)
        self.messages: list = []

    def message(self, message: dict) -> None:
        if message["kind"] == "check":
            self._verdicts.append(message["verdict"])
        self.error = self.error or message["kind"] == "error"
        self.messages.append(message)

    def checks(self) -> dict:
        return {m["name"]: m for m in self.messages if m["kind"] == "check"}


def good(name: str) -> object:
    def run(context: Context, report: worker.Report) -> None:
        report.check(check(name, "pass", "well"))

    return run


def hang(context: Context, report: worker.Report) -> None:
    time.sleep(600)


def broken(context: Context, report: worker.Report) -> None:
    raise ValueError("no such thing")


class EngineTest(unittest.TestCase):
    def run_parts(self, parts: list, deadline_s: float = 30.0, tier: str = "quick") -> Kept:
        right = registry.parts
        registry.parts = lambda: parts
        self.addCleanup(setattr, registry, "parts", right)
        with tempfile.TemporaryDirectory() as folder:
            job = worker.Job((), folder, folder, 7, tier=tier)
            output = Kept()
            engine.Engine(job, output, deadline_s).run()
        return output

    def test_a_part_that_hangs_is_killed_at_its_own_deadline_and_the_rest_is_unknown(self) -> None:
        parts = [
            Part("first", "quick", "host", good("first")),
            Part("hangs", "quick", "host", hang, deadline_s=0.5),
            Part("last", "quick", "host", good("last")),
        ]
        found = self.run_parts(parts).checks()
        self.assertEqual(found["first"]["verdict"], "pass")
        self.assertEqual(found["process"]["verdict"], "fail")
        self.assertIn("did not end within 0.5 s (hangs)", found["process"]["reason"])
        self.assertEqual(found["last"]["verdict"], "unknown")
        self.assertIn("not run", found["last"]["reason"])

    def test_a_part_that_breaks_does_not_keep_the_others_from_being_measured(self) -> None:
        parts = [Part("breaks", "quick", "host", broken), Part("last", "quick", "host", good("last"))]
        found = self.run_parts(parts).checks()
        self.assertEqual((found["breaks"]["verdict"], found["last"]["verdict"]), ("unknown", "pass"))
        self.assertIn("ValueError: no such thing", found["breaks"]["reason"])

    def test_a_check_says_its_tier_and_what_it_reads(self) -> None:
        parts = [Part("one", "quick", "host", good("one"), reads="/proc/one")]
        found = self.run_parts(parts).checks()["one"]
        self.assertEqual((found["tier"], found["reads"], found["simulated"]), ("quick", "/proc/one", False))

    def test_without_torch_a_tier_says_so_of_each_part_that_needs_it(self) -> None:
        real = worker._torch_imports
        missing = {"kind": "error", "code": "torch-missing", "message": "torch is not here", "hint": "install it"}
        worker._torch_imports = lambda send: bool(send(missing))
        self.addCleanup(setattr, worker, "_torch_imports", real)
        output = self.run_parts([Part("trains", "quick", "device", good("trains"))])
        self.assertEqual(output.checks()["trains"]["verdict"], "unknown")
        self.assertIn("torch is not here", output.checks()["trains"]["reason"])
        self.assertFalse(output.error)


class ChosenTest(unittest.TestCase):
    def test_a_deeper_tier_has_all_of_the_ones_before(self) -> None:
        parts = registry.parts()
        sizes = [len(chosen(parts, tier)) for tier in TIERS]
        self.assertEqual(sizes, sorted(sizes))
        self.assertEqual(len(chosen(parts, "burnin")), len(parts))
        self.assertFalse([part.name for part in chosen(parts, "quick") if part.loads])

    def test_a_name_takes_what_is_below_it(self) -> None:
        names = [part.name for part in chosen(registry.parts(), "", ["gemm"])]
        self.assertIn("gemm.bf16", names)
        self.assertTrue(all(name.startswith("gemm.") for name in names))


class CanariesTest(unittest.TestCase):
    READING: ClassVar[dict] = {"gpus": [{"index": 0, "values": {"uuid": "GPU-1", "throttle": 0}, "links": []}]}

    def judged(self, run: object) -> dict:
        return canaries.of_readings(Context(), [Part("x", "quick", "reading", run)], self.READING)

    def test_judges_that_see_nothing_make_the_run_void(self) -> None:
        found = self.judged(lambda context, reading: [check("x", "pass", "well")])
        self.assertEqual(found["verdict"], "fail")
        self.assertIn("this run is void", found["reason"])

    def test_judges_that_see_everything_pass(self) -> None:
        def run(context: Context, reading: dict) -> list:
            values = reading["gpus"][0]["values"]
            return [check("x", "pass" if values == self.READING["gpus"][0]["values"] else "fail", str(values))]

        self.assertEqual(self.judged(run)["verdict"], "pass")

    def test_without_a_gpu_it_is_skipped(self) -> None:
        self.assertEqual(canaries.of_readings(Context(), [], {"gpus": []})["verdict"], "skip")
