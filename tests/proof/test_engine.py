"""The engine: which parts run where, what hangs, what is skipped, what is planted."""

from __future__ import annotations

import tempfile
import time
import unittest
from pathlib import Path
from typing import ClassVar
from unittest import mock

from gpuprov.proof import canaries, engine, registry, worker
from gpuprov.proof.check import check
from gpuprov.proof.output import Output
from gpuprov.proof.parts import TIERS, Context, Part, chosen
from gpuprov.proof.readings import Readings
from tests.support.readings import NOT_SUPPORTED, Host, gpu, reading


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


class Case(unittest.TestCase):
    def run_parts(
        self, parts: list, deadline_s: float = 30.0, tier: str = "quick", tests: tuple = (), **job: object
    ) -> Kept:
        with mock.patch.object(registry, "parts", return_value=parts), tempfile.TemporaryDirectory() as folder:
            output = Kept()
            engine.Engine(worker.Job(tests, folder, folder, 7, tier=tier, **job), output, deadline_s).run()
        return output


class EngineTest(Case):
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

    def test_a_part_that_is_named_beside_a_tier_has_the_time_of_the_run(self) -> None:
        def slow(context: Context, report: worker.Report) -> None:
            time.sleep(0.6)
            report.check(check("slow", "pass", "well"))

        found = self.run_parts([Part("slow", "nightly", "host", slow, deadline_s=0.3)], tests=("slow",)).checks()
        self.assertEqual(list(found), ["slow"])

    def test_without_torch_a_tier_says_so_of_each_part_that_needs_it(self) -> None:
        missing = {"kind": "error", "code": "torch-missing", "message": "torch is not here", "hint": "install it"}
        with mock.patch.object(worker, "_torch_imports", lambda send: bool(send(missing))):
            output = self.run_parts([Part("trains", "quick", "device", good("trains"))])
        self.assertEqual(output.checks()["trains"]["verdict"], "unknown")
        self.assertIn("torch is not here", output.checks()["trains"]["reason"])
        self.assertFalse(output.error)

    def test_a_host_with_simulated_gpus_says_so_of_the_first_check_on(self) -> None:
        def told(context: Context, report: worker.Report) -> None:
            report.check(check("one", "pass", f"simulated: {context.simulated}"))

        with tempfile.TemporaryDirectory() as root:
            Host(root).write(worker.DOUBLES, "")
            output = self.run_parts([Part("one", "quick", "host", told)], root=root)
        found = output.checks()["one"]
        self.assertEqual((found["simulated"], found["reason"]), (True, "simulated: True"))
        self.assertTrue(output.simulated)


class OnGpus(Case):
    """A host with one GPU, as NVML's and torch's processes tell of it."""

    UUID = "GPU-00000000"
    LOADS = Part("loads", "nightly", "device", good("loads"), loads=True)

    def look(
        self, parts: list, its: dict | None = None, uuid: str = UUID, tier: str = "nightly", **job: object
    ) -> Kept:
        """Run *parts* on the GPU of the reading *its*."""
        its = its or reading(gpu())
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.started = Path(folder.name, "started")

        def nvml(job: worker.Job, rest: str, send: worker.Send) -> None:
            send({"kind": "library", "key": "error", "value": its["error"]})
            send({"kind": "library", "key": "count", "value": its["count"]})

        def values(job: worker.Job, rest: str, send: worker.Send) -> None:
            for key, value in its["gpus"][int(rest)]["values"].items():
                send({"kind": "value", "gpu": int(rest), "key": key, "value": value})
            with self.started.open("a") as f:
                f.write("read ")

        def torch(job: worker.Job, rest: str, send: worker.Send) -> None:
            with self.started.open("a") as f:
                f.write("torch ")
            send({"kind": "versions", "devices": [{"index": 0, "uuid": uuid}], "proving": ["cuda:0"]})

        fakes = {"nvml": nvml, "gpu": values, "torch": torch, "counters": lambda *_: None}
        with mock.patch.dict(worker._PROCESSES, fakes):
            return self.run_parts(parts, tier=tier, **job)

    def loaded(self, **more: object) -> tuple[str, str]:
        found = self.look([self.LOADS], **more).checks()["loads"]
        return found["verdict"], found["reason"]

    def test_a_gpu_that_nobody_uses_is_loaded(self) -> None:
        self.assertEqual(self.loaded(), ("pass", "well"))
        self.assertEqual(self.loaded(its=reading(gpu(processes__graphics=NOT_SUPPORTED))), ("pass", "well"))

    def test_a_gpu_in_use_is_not_loaded_whatever_else_was_asked_for(self) -> None:
        one = [{"pid": 4242, "memory": 1}]
        for its in (gpu(processes__compute=one), gpu(processes__graphics=one)):
            verdict, reason = self.loaded(its=reading(its))
            self.assertEqual((verdict, reason), ("skip", "in use by process 4242; --load-busy measures beside it"))
            self.assertEqual(
                self.look([self.LOADS], its=reading(its)).checks()["loads"]["data"], {"busy": "process 4242"}
            )
        hidden = reading(gpu(memory__used=60 << 30))
        self.assertIn("somebody (memory)", self.loaded(its=hidden)[1])
        self.assertEqual(self.loaded(its=hidden, load_busy=True), ("pass", "well"))

    def test_where_use_cannot_be_told_nothing_is_loaded_and_that_is_unknown(self) -> None:
        broken_nvml = reading(gpu(), error={"error": "Unknown", "text": "nvmlInit_v2: Unknown"}, count=None)
        untold = reading(gpu(processes__compute={"error": "NoPermission"}))
        for its, uuid, why in (
            (broken_nvml, self.UUID, "NVML does not answer: nvmlInit_v2: Unknown"),
            (untold, self.UUID, "NVML does not tell its processes (processes.compute: NoPermission)"),
            (untold, "", "torch does not tell which of NVML's GPUs it is"),
            (reading(gpu()), "GPU-of-another-host", "NVML has no GPU GPU-of-another-host"),
        ):
            verdict, reason = self.loaded(its=its, uuid=uuid)
            self.assertEqual(verdict, "unknown")
            self.assertIn(why, reason)
            self.assertIn("--load-busy", reason)
            self.assertEqual(self.loaded(its=its, uuid=uuid, load_busy=True), ("pass", "well"))

    def test_a_torch_that_tells_no_uuid_may_load_a_host_that_nobody_uses(self) -> None:
        self.assertEqual(self.loaded(uuid=""), ("pass", "well"))

    def test_torch_starts_when_the_gpus_users_are_known(self) -> None:
        self.look([self.LOADS, Part("reads", "quick", "reading", lambda context, its: [])])
        self.assertEqual(self.started.read_text().split()[:2], ["read", "torch"])

    def test_a_judge_that_breaks_is_unknown_and_takes_nothing_with_it(self) -> None:
        def no_judge(context: Context, its: dict) -> list:
            raise KeyError("temperature")

        parts = [
            Part("breaks", "quick", "reading", no_judge),
            Part("last", "quick", "reading", lambda context, its: [check("last", "pass", "well")]),
        ]
        output = self.look(parts, tier="quick")
        found = output.checks()
        self.assertEqual((found["breaks"]["verdict"], found["last"]["verdict"]), ("unknown", "pass"))
        self.assertEqual(found["breaks"]["reason"], "breaks stopped: KeyError: 'temperature'")

    def test_a_comparison_of_counters_that_breaks_is_unknown(self) -> None:
        parts = [self.LOADS, Part("reads", "quick", "reading", lambda context, its: [])]
        with mock.patch.object(Readings, "differences", side_effect=ValueError("no such counter")):
            found = self.look(parts).checks()
        self.assertEqual((found["loads"]["verdict"], found["load"]["verdict"]), ("pass", "unknown"))

    def test_what_a_torch_process_did_not_come_to_is_unknown(self) -> None:
        def dies(job: worker.Job, rest: str, send: worker.Send) -> None:
            send({"kind": "versions", "devices": [], "proving": ["cpu"]})
            send({"kind": "begin", "part": "first", "device": ""})
            raise SystemExit(3)

        parts = [Part(name, "quick", "torch", lambda context, found: []) for name in ("first", "second")]
        with mock.patch.dict(worker._PROCESSES, {"torch": dies}):
            found = self.run_parts(parts).checks()
        self.assertEqual((found["process"]["verdict"], found["second"]["verdict"]), ("unknown", "unknown"))


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
    PLANTED: ClassVar[tuple] = (("x", {"throttle": 0x80}, "a power brake"),)
    READING: ClassVar[dict] = {"gpus": [{"index": 0, "values": {"uuid": "GPU-1", "throttle": 0}, "links": []}]}

    def judged(self, run: object, name: str = "x") -> dict:
        with mock.patch.object(canaries, "PLANTED", self.PLANTED):
            return canaries.of_readings(Context(), [Part(name, "quick", "reading", run)], self.READING)

    def test_judges_that_see_nothing_make_the_run_void(self) -> None:
        found = self.judged(lambda context, reading: [check("x", "pass", "well")])
        self.assertEqual(found["verdict"], "fail")
        self.assertIn("this run is void", found["reason"])

    def test_judges_that_break_on_a_fault_make_the_run_void(self) -> None:
        def run(context: Context, reading: dict) -> list:
            return [] if not reading["gpus"][0]["values"]["throttle"] else [{}["0x80"]]

        found = self.judged(run)
        self.assertEqual(found["verdict"], "fail")
        self.assertIn("KeyError: '0x80'): this run is void", found["reason"])

    def test_judges_that_see_everything_pass(self) -> None:
        def run(context: Context, reading: dict) -> list:
            values = reading["gpus"][0]["values"]
            return [check("x", "pass" if values == self.READING["gpus"][0]["values"] else "fail", str(values))]

        self.assertEqual(self.judged(run)["verdict"], "pass")

    def test_single_checks_are_tried_with_their_own_faults(self) -> None:
        parts = chosen(registry.parts(), "", ["gpu.throttle", "xid"])
        with tempfile.TemporaryDirectory() as root:
            context = Context(root=str(Host(root).healthy(1).root))
            found = canaries.of_readings(context, [part for part in parts if part.where == "reading"], reading(gpu()))
            self.assertEqual((found["verdict"], found["measured"]), ("pass", 1))
            self.assertEqual(canaries.of_readings(context, [], reading(gpu()))["verdict"], "skip")

    def test_every_fault_is_planted_in_every_tier(self) -> None:
        names = {part.name for part in chosen(registry.parts(), "quick") if part.where == "reading"}
        self.assertLessEqual({*(name for name, _, _ in canaries.PLANTED), canaries.LOST_PART}, names)

    def test_without_a_gpu_it_is_skipped(self) -> None:
        self.assertEqual(canaries.of_readings(Context(), [], {"gpus": []})["verdict"], "skip")
