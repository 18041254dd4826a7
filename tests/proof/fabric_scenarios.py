"""Two ranks of the fabric's proof, one of them wrong in some way; runs where torch is (test_fabric_torch.py)."""

from __future__ import annotations

import unittest
from unittest import mock

import torch
import torch._dynamo  # what DistributedDataParallel imports when it is first used; here it is done once for all forks
from torch.nn.parallel import DistributedDataParallel

from gpuprov.proof.fabric import collectives, ddp, rank
from gpuprov.proof.fabric.children import Child
from tests.support.emulated_cuda import EmulatedCuda

RANKS = [["gpu01", "cpu"], ["gpu02", "cpu"]]
GPUS = [["gpu01", "cuda:0"], ["gpu01", "cuda:1"]]


def nothing() -> None:
    """Leave a rank as it is."""


def emulated() -> None:
    """Give a rank two EMULATED GPUs for the rest of its process."""
    EmulatedCuda(2).__enter__()


def together(what: str, second: object = nothing, first: object = nothing, ranks: list = RANKS) -> list:
    """Run a round with two ranks, the *second* of which is spoiled by a function; return their outcomes."""
    children = []
    for number, spoil in enumerate((first, second)):
        task = rank.Task(what, ranks, number, 0, "127.0.0.1", 60.0, {"cpu": 1 << 16, "cuda": 1 << 16}, 6)

        def run(lines: object, task: object = task, spoil: object = spoil) -> None:
            spoil()
            rank.run(task, lines)

        children.append(Child(f"rank-{number}", run))
    outcomes: list = [None, None]
    store = None
    for child in children:
        child.lines.patience(60.0)
        ready = child.lines.one()
        store = ready.get("store") or store
    for child in children:
        child.lines.send({"store": store})
    for number, child in enumerate(children):
        while outcomes[number] is None:
            line = child.lines.one()
            if line["t"] == "outcome":
                outcomes[number] = line
    for child in children:
        child.kill()
        child.lines.close()
        while not child.reap():
            pass
    return outcomes


def patched(target: object, name: str, replacement: object) -> None:
    """Replace something for the rest of this process."""
    mock.patch.object(target, name, replacement).start()


class EmulatedGpus(unittest.TestCase):
    """What is else said to NCCL and CUDA, said to devices that the CPU stands in for."""

    def test_rounds_of_two_gpus(self) -> None:
        for what, wanted in (
            ("collectives", {"allreduce", "allgather", "alltoall"}),
            ("pairs", {"allreduce"}),
            ("ddp", {"ddp"}),
        ):
            first, second = together(what, emulated, emulated, GPUS)
            self.assertEqual((first["state"], second["state"]), ("ok", "ok"), (what, first, second))
            self.assertEqual(first["data"]["backend"], "nccl")
            self.assertLessEqual(wanted, set(first["data"]))


class Collectives(unittest.TestCase):
    def test_healthy(self) -> None:
        first, second = together("collectives")
        self.assertEqual((first["state"], second["state"]), ("ok", "ok"), (first, second))
        self.assertEqual(set(first["data"]), {"allreduce", "allgather", "alltoall", "interface", "backend"})
        for name in ("allreduce", "allgather", "alltoall"):
            self.assertEqual(len(first["data"][name]["samples"]), collectives.SAMPLES)
            self.assertEqual(first["data"][name]["world"], 2)
            self.assertGreater(first["data"][name]["gb_per_s"], 0)
        self.assertEqual(first["data"]["interface"], "lo")

    def test_the_bus_bytes_are_those_of_nccl_tests(self) -> None:
        self.assertEqual([collectives.AllReduce.factor(n) for n in (2, 4, 8)], [1.0, 1.5, 1.75])
        self.assertEqual([collectives.AllGather.factor(n) for n in (2, 4)], [0.5, 0.75])
        self.assertEqual([collectives.AllToAll.factor(n) for n in (2, 4)], [0.5, 0.75])

    def test_numbers_are_exact_up_to_thousands_of_ranks(self) -> None:
        total = sum(collectives._share(n) for n in range(9000))
        self.assertLess(collectives.CYCLE * total, 1 << 24)
        self.assertLess(
            collectives.CYCLE * max(collectives._both(a, b) + 1 for a in (0, 3199) for b in (0, 3199)), 1 << 24
        )

    def test_a_wrong_sum(self) -> None:
        def spoil() -> None:
            honest = collectives.AllReduce.run

            def run(one: object) -> None:
                honest(one)
                one.out[5] += 1

            patched(collectives.AllReduce, "run", run)

        _, second = together("pairs", spoil)
        self.assertEqual(second["state"], "wrong")
        # base 6 at number 5, times the shares 1 and 2 of the ranks
        self.assertEqual(second["text"], "allreduce: a sum: number 5 is 19, must be 18 (1 of 16384 wrong)")

    def test_a_rank_that_sends_something_else_is_named_by_the_receiver(self) -> None:
        def spoil() -> None:
            honest = collectives.AllGather.run

            def run(one: object) -> None:
                one._mine[3] = 99.0
                honest(one)

            patched(collectives.AllGather, "run", run)

        first, _ = together("collectives", spoil)
        self.assertEqual(first["state"], "wrong")
        self.assertIn("allgather: from gpu02 cpu: number 3 is 99, must be 8", first["text"])

    def test_a_part_that_went_to_the_wrong_rank(self) -> None:
        def spoil() -> None:
            honest = collectives.AllToAll.run

            def run(one: object) -> None:
                honest(one)
                one.out.copy_(one.out.flip(0))

            patched(collectives.AllToAll, "run", run)

        _, second = together("collectives", spoil)
        self.assertEqual(second["state"], "wrong")
        self.assertIn("alltoall: from gpu01 cpu: number 0 is", second["text"])

    def test_a_comparison_that_sees_nothing_is_void(self) -> None:
        _, second = together("pairs", lambda: patched(collectives, "_first_wrong", lambda *_: ""))
        self.assertEqual(second["state"], "wrong")
        self.assertIn("the canary was not caught", second["text"])


class Training(unittest.TestCase):
    def test_healthy(self) -> None:
        first, second = together("ddp")
        self.assertEqual((first["state"], second["state"]), ("ok", "ok"), (first, second))
        found = first["data"]["ddp"]
        self.assertEqual((found["world"], found["steps"], len(found["losses"])), (2, 6, 6))
        self.assertLess(found["losses"][-1], found["losses"][0])
        self.assertLessEqual(found["difference"], ddp.BOUND)

    def wrong(self, spoil: object) -> str:
        first, second = together("ddp", spoil)
        self.assertEqual((first["state"], second["state"]), ("wrong", "wrong"), (first, second))
        self.assertEqual(first["text"], second["text"])
        return str(first["text"])

    def test_one_rank_with_other_data(self) -> None:
        text = self.wrong(lambda: patched(ddp, "SEED", 8))
        self.assertEqual(text, "the points of the training: not the same bits on all ranks; gpu02 cpu differs")

    def test_a_gradient_spiked_once(self) -> None:
        def spoil() -> None:
            honest, steps = ddp._step, []

            def step(model: object, *rest: object) -> float:
                total = honest(model, *rest)
                steps.append(total)
                if len(steps) == 3:
                    next(iter(model.parameters())).grad[0, 0] += 10
                return total

            patched(ddp, "_step", step)

        text = self.wrong(spoil)
        self.assertEqual(text, "the gradients of step 3: not the same bits on all ranks; gpu02 cpu differs")

    def test_a_bit_flipped_in_a_weight(self) -> None:
        def spoil() -> None:
            honest, steps = ddp._step, []

            def step(model: object, *rest: object) -> float:
                total = honest(model, *rest)
                steps.append(total)
                if len(steps) == 6:
                    with torch.no_grad():
                        next(iter(model.parameters())).view(torch.int32)[0, 0] ^= 1
                return total

            patched(ddp, "_step", step)

        self.assertEqual(self.wrong(spoil), "the trained weights: not the same bits on all ranks; gpu02 cpu differs")

    def test_a_rank_that_trains_with_anothers_points(self) -> None:
        def spoil() -> None:
            honest = ddp._step
            patched(ddp, "_step", lambda model, optimiser, x, y: honest(model, optimiser, x.flip(0) * 0.5, y))

        self.assertRegex(self.wrong(spoil), r"a loss differs from that of one process by .* \(bound 1e-05\)")

    def test_gradients_that_are_not_averaged(self) -> None:
        def spoil() -> None:
            patched(DistributedDataParallel, "forward", lambda model, *x: model.module(*x))

        first, second = together("ddp", spoil, spoil)
        self.assertEqual((first["state"], second["state"]), ("wrong", "wrong"))
        self.assertIn("the gradients of step 1: not the same bits", first["text"])

    def test_the_odd_ones(self) -> None:
        self.assertEqual(ddp.odd_ones([5, 5, 7, 5]), [2])
        self.assertEqual(ddp.odd_ones([7, 5, 5]), [0])
        self.assertEqual(ddp.odd_ones([1, 2]), [1])
        self.assertEqual(ddp.odd_ones([3, 3]), [])


if __name__ == "__main__":
    unittest.main()
