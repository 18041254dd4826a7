from __future__ import annotations

import math
import unittest

from gpuprov.proof.check import check, finite, thinned, within, worst
from gpuprov.proof.training import judge
from gpuprov.proof.training.data import linear_task, mlp_task
from gpuprov.proof.training.replay import Trace, least_squares, replay

HEALTHY_SEEDS = 200


def verdicts(checks: list) -> list:
    return [item["verdict"] for item in checks]


class FalseAlarms(unittest.TestCase):
    def test_no_healthy_seed_is_accused(self) -> None:
        for seed in range(1000, 1000 + HEALTHY_SEEDS):
            task = linear_task(seed, epochs=judge.SETTLED_EPOCHS)
            parameters = replay(task).parameters
            checks = judge.against_least_squares(task, "cpu", parameters) + judge.against_truth(task, "cpu", parameters)
            self.assertEqual(verdicts(checks), ["pass"] * 6, f"seed {seed}: {checks}")


class StepLosses(unittest.TestCase):
    def setUp(self) -> None:
        self.task = linear_task(7)
        self.good = replay(self.task)

    def judged(self, steps: list) -> dict:
        return judge.step_losses(self.task, "cpu", Trace(steps, self.good.parameters, {}), self.good)

    def test_a_faithful_device_passes(self) -> None:
        self.assertEqual(self.judged([loss * (1 + 2e-6) for loss in self.good.steps])["verdict"], "pass")

    def test_one_wrong_step_among_thousands_fails_and_is_named(self) -> None:
        steps = list(self.good.steps)
        steps[3149] *= 1 + 2e-5
        found = self.judged(steps)
        self.assertEqual(found["verdict"], "fail")
        self.assertIn("step 3150 of 6300", found["reason"])
        self.assertAlmostEqual(found["measured"], 2e-5, places=7)

    def test_nan_and_missing_steps_fail(self) -> None:
        self.assertEqual(self.judged([*self.good.steps[:-1], math.nan])["verdict"], "fail")
        self.assertEqual(self.judged([math.nan, *self.good.steps[1:]])["verdict"], "fail")
        self.assertEqual(self.judged(self.good.steps[:-1])["verdict"], "fail")

    def test_a_long_network_training_is_compared_for_ten_epochs_only(self) -> None:
        task = mlp_task(7, epochs=11)
        good = replay(task, {1, 10})
        spoiled = [*good.steps[:630], *(loss * 1.001 for loss in good.steps[630:])]
        trace = Trace(spoiled, good.parameters, good.after)
        self.assertEqual(judge.step_losses(task, "cpu", trace, good)["verdict"], "pass")
        names = [item["name"] for item in judge.network_parameters(task, "cpu", trace, good)]
        self.assertEqual(names, ["mlp.replay-1", "mlp.replay-10", "mlp.late-loss"])
        wild = Trace([*good.steps[:630], *(loss * 1.1 for loss in good.steps[630:])], good.parameters, good.after)
        self.assertEqual(verdicts(judge.network_parameters(task, "cpu", wild, good)), ["pass", "pass", "fail"])


class Parameters(unittest.TestCase):
    def test_a_line_off_by_more_than_rounding_fails(self) -> None:
        task = linear_task(7)
        good = replay(task)
        for shift, verdict in ((1e-7, "pass"), (2e-5, "fail"), (math.nan, "fail")):
            trace = Trace(good.steps, [good.parameters[0], good.parameters[1] + shift], {})
            self.assertEqual(judge.line_parameters(task, "cpu", trace, good)["verdict"], verdict, shift)

    def test_one_of_171_parameters_off_fails(self) -> None:
        task = mlp_task(7, epochs=1)
        good = replay(task, {1})
        off = list(good.after[1])
        off[100] += 2e-5
        self.assertEqual(verdicts(judge.network_parameters(task, "cpu", Trace([], off, {1: off}), good)), ["fail"])

    def test_least_squares_bounds(self) -> None:
        task = linear_task(7)
        slope, intercept, _ = least_squares(task)
        self.assertEqual(verdicts(judge.against_least_squares(task, "cpu", (slope, intercept))), ["pass"] * 3)
        off = judge.against_least_squares(task, "cpu", (slope + 0.011, intercept))
        self.assertEqual(verdicts(off), ["fail", "pass", "pass"])
        off = judge.against_least_squares(task, "cpu", (slope, intercept + 0.03))
        self.assertEqual(verdicts(off), ["pass", "fail", "fail"])
        self.assertEqual(off[0]["expected"], "<= 0.01")

    def test_too_few_epochs_are_not_judged_by_where_they_end(self) -> None:
        task = linear_task(7, epochs=5)
        self.assertEqual(verdicts(judge.against_least_squares(task, "cpu", (0.0, 0.0))), ["skip"] * 3)
        self.assertEqual(judge.tilt_caught(task, "cpu", (0.0, 0.0))["verdict"], "skip")

    def test_truth_bounds(self) -> None:
        task = linear_task(7)
        self.assertEqual(verdicts(judge.against_truth(task, "cpu", (0.03 + 0.09, 0.3)))[0], "fail")
        self.assertEqual(verdicts(judge.against_truth(task, "cpu", (0.03, 0.3 + 0.06)))[1], "fail")


class Gradients(unittest.TestCase):
    def test_wrong_derivatives_fail_each_by_its_own_check(self) -> None:
        task = linear_task(7)
        right, wrong = [0.5, -0.25], [0.5, -0.2501]
        for given, expected in (
            ((right, right, right, right), ["pass", "pass"]),
            ((wrong, right, right, right), ["fail", "pass"]),
            ((right, wrong, right, right), ["pass", "fail"]),
            ((right, [0.5], right, right), ["pass", "fail"]),
        ):
            self.assertEqual(verdicts(judge.gradients(task, "cpu", *given)), expected)


class Canaries(unittest.TestCase):
    def test_a_spike_leaves_no_mark_on_the_weights_but_on_the_steps(self) -> None:
        task = linear_task(7, epochs=30)
        good = replay(task)
        x, y = [row[0] for row in task.x], task.y
        w, b = task.layers[0][0][0][0], task.layers[0][1][0]
        steps = []
        for step, batch in enumerate(i for epoch in range(30) for i in task.batches(epoch)):
            errors = [w * x[i] + b - y[i] for i in batch]
            steps.append(sum(e * e for e in errors) / len(batch))
            gradient = 2 * sum(e * x[i] for e, i in zip(errors, batch)) / len(batch)  # noqa: B905 - 3.8
            w -= 0.01 * (gradient + (10.0 if step == 100 else 0.0))
            b -= 0.01 * 2 * sum(errors) / len(batch)
        spoiled = Trace(steps, [w, b], {})
        self.assertEqual(judge.line_parameters(task, "cpu", spoiled, good)["verdict"], "pass")
        found = judge.spike_caught(task, "cpu", 100, spoiled, good)
        self.assertEqual(found["verdict"], "pass")
        self.assertIn("at step 100", found["reason"])

    def test_an_uncaught_spike_makes_the_run_void(self) -> None:
        task = linear_task(7)
        good = replay(task)
        found = judge.spike_caught(task, "cpu", 100, good, good)
        self.assertEqual(found["verdict"], "fail")
        self.assertIn("void", found["reason"])

    def test_data_that_lie_are_caught_and_data_that_do_not_are_not(self) -> None:
        task = linear_task(7)
        parameters = replay(task).parameters
        self.assertEqual(judge.tilt_caught(task, "cpu", parameters)["verdict"], "pass")
        self.assertEqual(judge.tilt_caught(task, "cpu", parameters, tilt=0.0)["verdict"], "fail")


class Checks(unittest.TestCase):
    def test_worst(self) -> None:
        self.assertEqual(worst(["pass", "skip", "pass"]), "skip")
        self.assertEqual(worst(["warn", "unknown"]), "unknown")
        self.assertEqual(worst(["fail", "unknown", "pass"]), "fail")
        self.assertEqual(worst([]), "unknown")

    def test_within_fails_for_what_is_no_number(self) -> None:
        for value in (math.nan, math.inf, -1.0):
            found = within("x", value, 1.0, "good", "bad")
            self.assertEqual((found["verdict"], found["reason"], found["action"]), ("fail", "bad", "isolate"))

    def test_a_check_has_the_fields_of_the_report(self) -> None:
        fields = "name verdict measured expected unit reason device action duration_s tier reads simulated data"
        self.assertEqual(list(check("x", "pass", "well")), fields.split())

    def test_finite(self) -> None:
        self.assertEqual(finite({"a": [math.nan, 1.5, (math.inf,)]}), {"a": ["nan", 1.5, ["inf"]]})

    def test_thinned_keeps_both_ends(self) -> None:
        series = [float(i) for i in range(1234)]
        short = thinned(series)
        self.assertEqual((len(short), short[0], short[-1]), (100, 0.0, 1233.0))
        self.assertEqual(thinned([0.123456789]), [0.12346])


if __name__ == "__main__":
    unittest.main()
