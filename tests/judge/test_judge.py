"""The judge on made-up fleets: what is slow, wrong or known of is told, and a healthy fleet has no accusation."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuprov.errors import SourceErrors
from gpuprov.judge import compare, run, votes
from gpuprov.judge.specs import Specs, load
from gpuprov.report.proof import host_verdict
from gpuprov.results import Check, HostReport, TaskResult
from gpuprov.wire.outcome import VERDICTS

if TYPE_CHECKING:
    from pathlib import Path

H100 = "NVIDIA H100 80GB HBM3"


def check(value: float, device: str = "cuda:0", name: str = "gemm.bf16", **data: Any) -> Check:
    more = {"kind": "measurement", "better": "higher", "p10": value, "samples": [value] * 5, **data}
    return Check(name, "pass", measured=value, unit="TFLOPS", reason="measured", device=device, data=more)


def host(name: str, *checks: Check, model: str = H100, torch: str = "2.13.0") -> HostReport:
    devices = [{"index": i, "name": model, "uuid": f"GPU-{name}-{i}"} for i in range(8)]
    versions = {"torch": torch, "cuda": "13.0", "driver": "580.95", "cudnn": "9", "devices": devices}
    task = TaskResult("t1", "Proof", "gpuprov_proof", "ok", result={"versions": versions})
    worst = max((c.verdict for c in checks), key=VERDICTS.index, default="")
    return HostReport(name, "ok", checks=checks, verdict=worst, tasks=(task,))


def fleet(count: int = 8, spread: float = 0.012, seed: int = 7) -> list[HostReport]:
    draw = random.Random(seed)
    return [
        host(f"gpu{i:02d}", *(check(720 * draw.gauss(1, spread), f"cuda:{d}") for d in range(4))) for i in range(count)
    ]


def judged(reports: list[HostReport], known: run.Known | None = None, specs: Specs | None = None) -> run.Judged:
    return run.judge(reports, specs or load(), known or run.Known(), host_verdict)


def twice(reports: list[HostReport]) -> run.Judged:
    return judged(reports, run.Known(strikes=judged(reports).bad))


class TestVerdicts:
    def test_a_healthy_fleet_has_no_fail_and_all_four_numbers(self) -> None:
        found = twice(fleet())
        assert {report.verdict for report in found.reports} <= {"pass", "warn"}
        assert found.bad == frozenset()
        numbers = found.reports[0].checks[0].data["judged"]
        assert set(numbers) == {"floor", "neighbours", "fleet", "past"}
        assert numbers["floor"]["against"] == pytest.approx(0.55 * 989, rel=0.01)
        assert numbers["past"]["against"] is None

    def test_a_gpu_at_a_third_of_its_speed_fails_at_the_second_run_in_a_row(self) -> None:
        reports = [host("gpu01", check(330.0))]
        first = judged(reports)
        (found,) = first.reports[0].checks
        assert found.verdict == "warn"
        assert "first strike" in found.reason
        (found,) = judged(reports, run.Known(strikes=first.bad)).reports[0].checks
        assert (found.verdict, found.action) == ("fail", "isolate")
        assert "33% of the model's peak" in found.reason

    def test_slower_than_neighbours_and_fleet_fails_though_the_floor_is_far(self) -> None:
        reports = fleet()
        slow = host("slow", *(check(620.0 if d == 2 else 720.0, f"cuda:{d}") for d in range(4)))
        found = {c.device: c.verdict for c in twice([*reports, slow]).reports[-1].checks}
        assert found == {"cuda:0": "pass", "cuda:1": "pass", "cuda:2": "fail", "cuda:3": "pass"}

    def test_a_third_of_the_fleet_that_is_slow_is_found(self) -> None:
        reports = [*fleet(6), *(host(f"bad{i}", check(640.0)) for i in range(3))]
        assert {r.host for r in judged(reports).reports if r.checks[0].verdict != "pass"} >= {"bad0", "bad1", "bad2"}

    def test_slow_samples_now_and_then_are_seen_by_the_p10(self) -> None:
        samples = [720.0] * 8 + [600.0] * 2
        odd = host("odd", check(720.0, p10=600.0, samples=samples))
        found = judged([*fleet(), odd]).reports[-1].checks[0]
        assert found.verdict == "warn"
        assert "slowest tenth" in found.reason

    def test_its_own_past_shows_what_no_spread_hides(self) -> None:
        known = run.Known(past=lambda *of: [750.0] * 5)
        assert judged([host("gpu01", check(722.0))], known).reports[0].checks[0].verdict == "warn"
        assert judged([host("gpu01", check(745.0))], known).reports[0].checks[0].verdict == "pass"

    def test_less_is_better_for_times(self) -> None:
        def time(value: float) -> Check:
            return check(value, name="launch", better="lower")

        reports = [host(f"gpu{i}", time(5.0)) for i in range(6)]
        known = run.Known(past=lambda *of: [5.0])
        found = judged([*reports, host("slow", time(8.0)), host("fast", time(3.0))], known)
        assert ("slow", "launch", "cuda:0") in found.bad
        assert found.reports[-1].checks[0].verdict == "pass"

    def test_other_software_and_unknown_models_are_not_compared(self) -> None:
        reports = [*fleet(), host("new", check(500.0), torch="2.99.0", model="NVIDIA Q999")]
        numbers = judged(reports).reports[-1].checks[0].data["judged"]
        assert [numbers[key]["against"] for key in ("floor", "fleet", "past")] == [None] * 3

    def test_cpus_and_doubles_are_left_as_they_are(self) -> None:
        cpu = host("gpu01", check(1.0, "cpu", "cpu.gemm.bf16"))
        assert judged([cpu]).reports == (cpu,)

    def test_an_acknowledged_fail_is_a_warning_that_names_its_owner(self) -> None:
        bad = host("gpu01", Check("ecc.uncorrected", "fail", device="gpu:3", reason="7 errors"))
        note = {("gpu01", "ecc.uncorrected", ""): "acknowledged by anna until 2026-12-01: RMA 4711"}
        found = judged([bad], run.Known(acknowledged=note)).reports[0]
        assert (found.verdict, found.checks[0].verdict) == ("warn", "warn")
        assert "anna" in found.cause

    def test_an_acknowledged_fail_hides_nothing_that_the_host_says_beside_it(self) -> None:
        bad = host("gpu01", Check("disk.space", "fail", reason="full"))
        bad.expected_gpus, bad.verdict, bad.cause = 8, "fail", "disk.space: full"
        known = run.Known(acknowledged={("gpu01", "disk.space", ""): "acknowledged by anna"})
        found = judged([bad], known).reports[0]
        assert (found.verdict, found.cause) == ("fail", "8 GPUs expected, none measured")
        idle = replace(bad, expected_gpus=None, found_gpus=0, stack={"driver": {"version": "580"}})
        assert judged([idle], known).reports[0].verdict == "unknown"

    @settings(deadline=None)
    @given(st.permutations(range(6)), st.sampled_from(VERDICTS))
    def test_it_only_worsens_and_the_order_of_hosts_does_not_matter(self, order: list[int], verdict: str) -> None:
        reports = fleet(5)
        odd = host("odd", check(500.0), Check("xid", verdict, reason="said by the host"))
        everybody = [*reports, odd]
        found = {r.host: r for r in judged([everybody[i] for i in order]).reports}
        assert found == {r.host: r for r in judged(everybody).reports}
        for before in everybody:
            for was, now in zip(before.checks, found[before.host].checks, strict=True):
                assert VERDICTS.index(now.verdict) >= VERDICTS.index(was.verdict)


class TestVotes:
    def test_a_minority_is_suspect_and_fails_when_the_next_run_says_the_same(self) -> None:
        reports = [host(f"gpu{i}", check(720.0, bits="bad" if i == 2 else "good", bits_of="seed 7")) for i in range(5)]
        first = judged(reports)
        assert [r.checks[0].verdict for r in first.reports] == ["pass", "pass", "warn", "pass", "pass"]
        assert "silent data corruption" in first.reports[2].checks[0].reason
        assert judged(reports, run.Known(strikes=first.bad)).reports[2].checks[0].verdict == "fail"

    def test_a_second_look_at_once_decides_or_leaves_the_strike(self) -> None:
        def one(index: int, bits: str, verdict: str = "pass") -> HostReport:
            said = replace(check(720.0, bits=bits, bits_of="seed 7"), verdict=verdict)
            return host(f"gpu{index}", said)

        reports = [one(i, "bad" if i == 2 else "good") for i in range(5)]
        key = ("gpu2", "gemm.bf16", "cuda:0")
        first = judged(reports)
        assert first.suspects == {key}
        for again, found in (
            (one(2, "bad"), {key: votes.AGAIN}),
            (one(2, "other still"), {key: votes.AGAIN}),
            (one(2, "good"), {key: votes.GONE}),
            (one(2, "good", "fail"), {key: votes.AGAIN}),
            (host("gpu2"), {}),
        ):
            assert run.confirmed(reports, [again], first.suspects) == found
            judgement = judged(reports, run.Known(again=found))
            (checked,) = judgement.reports[2].checks
            assert checked.verdict == ("fail" if found.get(key) == votes.AGAIN else "warn")
            assert ("not so when it was run again" in checked.reason) == (found.get(key) == votes.GONE)
            assert judgement.bad == {key}, "what was seen once is remembered"

    @pytest.mark.parametrize(
        ("first", "second", "found"),
        [
            ("12", "12", ["again", "again"]),  # each is sure, and one of them is wrong
            ("12", "13", ["cleared", "again"]),  # only one agrees with itself
            ("12", "11", ["cleared", "gone"]),
            ("12", "21", ["again", "again"]),
            ("1122", "1122", ["again"] * 4),
            ("1122", "1121", ["cleared", "cleared", "again", "gone"]),
            ("1122", "11-2", ["again", "again", "again"]),  # one could not be run again: nobody is cleared
            ("112", "--1", ["gone"]),
            ("112", "--2", ["again"]),
            ("111", "---", []),
        ],
    )
    def test_who_agrees_with_itself_is_believed_when_nobody_has_a_majority(
        self, first: str, second: str, found: list[str]
    ) -> None:
        one = {(f"gpu{i}", "x", "cuda:0"): bits for i, bits in enumerate(first)}
        other = {(f"gpu{i}", "x", "cuda:0"): bits for i, bits in enumerate(second) if bits != "-"}
        assert list(votes.second_look(one, other).values()) == found

    def test_of_two_gpus_the_one_that_agrees_with_itself_has_no_strike(self) -> None:
        def one(index: int, bits: str) -> HostReport:
            return host(f"gpu{index}", check(720.0, bits=bits, bits_of="seed 7"))

        reports = [one(0, "1"), one(1, "2")]
        found = run.confirmed(reports, [one(0, "1"), one(1, "3")], judged(reports).suspects)
        judgement = judged(reports, run.Known(again=found))
        assert [r.verdict for r in judgement.reports] == ["pass", "fail"]
        assert judgement.bad == {("gpu1", "gemm.bf16", "cuda:0")}

    def test_a_strike_goes_when_the_next_vote_is_unanimous(self) -> None:
        bits = Check("training", "pass", device="cuda:0", data={"bits": "good", "bits_of": "seed 7"})
        alone = judged([host("gpu1", bits)])
        assert alone.judged == frozenset()  # nobody voted against it, and nobody for it
        everybody = judged([host(f"gpu{i}", bits) for i in range(3)])
        assert everybody.judged == {(f"gpu{i}", "training", "cuda:0") for i in range(3)}

    def test_without_a_majority_all_are_suspects(self) -> None:
        found, most = votes.suspects({("a", "x", ""): "1", ("b", "x", ""): "2"})
        assert (len(found), most) == (2, "")


class TestNumbers:
    @settings(deadline=None)
    @given(st.floats(0.1, 1e6), st.floats(0.01, 1.0))
    def test_similarity_of_constants_is_their_ratio(self, value: float, part: float) -> None:
        assert compare.similarity([value * part], [value]) == pytest.approx(part)
        assert compare.similarity([value], [value * part]) == pytest.approx(1.0)

    @settings(deadline=None)
    @given(st.lists(st.floats(0.1, 10), min_size=1, max_size=9), st.lists(st.floats(0.1, 10), min_size=1, max_size=9))
    def test_similarity_is_what_its_integrals_say(self, one: list[float], other: list[float]) -> None:
        points = sorted({0.0, *one, *other})
        below = total = 0.0
        for left, right in itertools.pairwise(points):
            mine, theirs = (sum(value >= right for value in some) / len(some) for some in (one, other))
            below += max(0.0, theirs - mine) * (right - left)
            total += max(mine, theirs) * (right - left)
        assert compare.similarity(one, other) == pytest.approx(1 - below / total)

    def test_the_middle_of_each_group_is_looked_for_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes: list[int] = []
        crowd = compare.crowd
        monkeypatch.setattr(compare, "crowd", lambda members: sizes.append(len(members)) or crowd(members))
        judged([*fleet(50), host("other", check(720.0), torch="2.99.0")])
        assert sorted(sizes) == [1, 200]


class TestSpecs:
    def test_every_example_name_has_one_model(self) -> None:
        specs = load()
        assert specs.model(H100).startswith("h100-sxm")
        assert specs.model("NVIDIA Q999") == ""
        assert specs.floor("", "gemm.bf16")[0] is None

    def test_a_floor_outside_of_the_plausible_is_refused_at_load(self, tmp_path: Path) -> None:
        text = "as_of: '2026'\ngpus:\n  x: {match: X, pci: [], tflops: {bf16: 100}, mem_gb_s: 10, pcie_gb_s: null,"
        text += " nvlink_gb_s: null, fractions: {gemm: [0.0006, 0.65]}}\n"
        (tmp_path / "specs.yaml").write_text(text)
        with pytest.raises(SourceErrors) as raised:
            load(str(tmp_path / "specs.yaml"))
        assert "the floor of gemm is 0.0006" in raised.value.problems[0].message
