"""From numbers to verdicts: what a healthy device may differ by. Pure, without torch.

Every bound comes from simulation or theory; docs/proof.md names the source of each. Loss alone
shows little: a slope of zero would cost 0.0004 of it, and a gradient spiked early leaves no mark on
the final weights. So every step is compared.
"""

from __future__ import annotations

import math

from gpuprov.proof.check import check, within
from gpuprov.proof.training.data import INTERCEPT, NOISE, SLOPE, STEPS_PER_EPOCH, tilted
from gpuprov.proof.training.replay import COMPARED_EPOCHS, least_squares, line_loss

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuprov.proof.check import Message
    from gpuprov.proof.training.data import Task
    from gpuprov.proof.training.replay import Trace

#: Relative difference of any step's loss from the float64 replay. Healthy: up to 2e-6.
STEP_BOUND = 1e-5
#: Absolute difference of any parameter from the replay. Healthy: up to 2e-7, 1e-6 after 10 epochs of the network.
LINE_BOUND = 1e-5
NETWORK_BOUND_1 = 1e-5
NETWORK_BOUND_10 = 1e-4
#: Later epochs of the network, where single ReLUs may have taken another branch: the mean loss only.
LATE_LOSS_BOUND = 1e-3
#: From the least-squares solution of the same data. Healthy (99 %): 0.0046, 0.0103, 1.1e-4.
SLOPE_BOUND = 0.01
INTERCEPT_BOUND = 0.02
EXCESS_BOUND = 5e-4
#: Before so many epochs SGD has not come close enough to the least-squares solution.
SETTLED_EPOCHS = 30
#: From the true line, for data that nobody has seen before: 5 standard deviations each.
TRUE_SLOPE_BOUND = 0.08
TRUE_INTERCEPT_BOUND = 0.05
TRUE_LOSS_BOUND = 0.012
#: Largest difference of a gradient, relative to the largest gradient. Healthy: up to 6e-7 and 1e-10.
FORMULA_BOUND = 1e-5
NUMERIC_BOUND = 1e-7


def step_losses(task: Task, device: str, trace: Trace, yardstick: Trace) -> Message:
    """Judge the loss of every step against the replay."""
    count = len(yardstick.steps)
    if task.name != "linear":
        count = min(count, COMPARED_EPOCHS * STEPS_PER_EPOCH)
    pairs = list(zip(trace.steps[:count], yardstick.steps))
    differences = [abs(a - b) / b for a, b in pairs] if len(trace.steps) >= count else [math.inf]
    first = next((i + 1 for i, d in enumerate(differences) if not d <= STEP_BOUND), 0)
    return within(
        task.name + ".step-losses",
        largest(differences),
        STEP_BOUND,
        f"the loss of each of {count} steps agrees with a float64 replay of the same batches",
        f"from step {first} of {count} the loss differs from a float64 replay of the same batches: "
        "something was computed wrongly, even if the final weights look right",
        unit="relative",
        device=device,
    )


def line_parameters(task: Task, device: str, trace: Trace, yardstick: Trace) -> Message:
    """Judge the line found against the replay."""
    found, wanted = _line(trace.parameters), _line(yardstick.parameters)
    return within(
        "linear.replay",
        distance(trace.parameters, yardstick.parameters),
        LINE_BOUND,
        f"{found} agrees with a float64 replay of the same batches",
        f"{found}, but a float64 replay of the same batches gives {wanted}",
        device=device,
        data={"slope": trace.parameters[0], "intercept": trace.parameters[1], "seed": task.seed},
    )


def _line(parameters: Sequence[float]) -> str:
    return "y = {:.4f}x + {:.4f}".format(*parameters)


def network_parameters(task: Task, device: str, trace: Trace, yardstick: Trace) -> list[Message]:
    """Judge the network's parameters after the epochs that were kept."""
    checks = []
    for epoch in sorted(yardstick.after):
        when = f"after {epoch} epoch{'s' if epoch > 1 else ''}"
        checks.append(
            within(
                f"mlp.replay-{epoch}",
                distance(trace.after[epoch], yardstick.after[epoch]),
                NETWORK_BOUND_1 if epoch == 1 else NETWORK_BOUND_10,
                f"all {len(trace.parameters)} parameters agree with a float64 replay {when}",
                "parameters differ from a float64 replay of the same batches " + when,
                device=device,
                data={"seed": task.seed},
            )
        )
    if task.epochs > COMPARED_EPOCHS:
        last = task.epochs - 1
        checks.append(
            within(
                "mlp.late-loss",
                abs(task.epoch_loss(trace.steps, last) - task.epoch_loss(yardstick.steps, last)),
                LATE_LOSS_BOUND,
                "the loss of the last epoch agrees with a float64 replay",
                "the loss of the last epoch differs from a float64 replay",
                device=device,
            )
        )
    return checks


def against_least_squares(task: Task, device: str, parameters: Sequence[float]) -> list[Message]:
    """Judge whether the optimiser found the best line through the data, which has a closed form."""
    slope, intercept = parameters
    best_slope, best_intercept, best_loss = least_squares(task)
    names = ("linear.least-squares-slope", "linear.least-squares-intercept", "linear.least-squares-loss")
    if task.epochs < SETTLED_EPOCHS:
        reason = f"{task.epochs} epochs are too few to come close: this is judged from {SETTLED_EPOCHS} on"
        return [check(name, "skip", reason, device=device) for name in names]
    # The best line has the least loss by definition; rounding may make another one better by 1e-16.
    excess = line_loss(task, slope, intercept) - best_loss
    excess = 0.0 if -1e-12 < excess < 0.0 else excess
    triples = (
        (f"slope {slope:.4f}", abs(slope - best_slope), SLOPE_BOUND, f"{best_slope:.4f}"),
        (f"intercept {intercept:.4f}", abs(intercept - best_intercept), INTERCEPT_BOUND, f"{best_intercept:.4f}"),
        (f"mean squared error {best_loss + excess:.5f}", excess, EXCESS_BOUND, f"{best_loss:.5f}"),
    )
    return [
        within(
            name,
            measured,
            bound,
            f"{found}: the least-squares solution of the same data has {best}",
            f"{found}, but the least-squares solution of the same data has {best}",
            device=device,
        )
        for name, (found, measured, bound, best) in zip(names, triples)
    ]


def against_truth(task: Task, device: str, parameters: Sequence[float]) -> list[Message]:
    """Judge the line against the one that the data came from: only fair with data never seen before."""
    slope, intercept = parameters
    noise = NOISE * NOISE / 3.0
    loss = line_loss(task, slope, intercept)
    triples = (
        ("linear.truth-slope", "slope", slope, SLOPE, TRUE_SLOPE_BOUND),
        ("linear.truth-intercept", "intercept", intercept, INTERCEPT, TRUE_INTERCEPT_BOUND),
        ("linear.truth-loss", "mean squared error", loss, noise, TRUE_LOSS_BOUND),
    )
    return [
        within(
            name,
            abs(found - true),
            bound,
            f"{what} {found:.4f} is within 5 standard deviations of the true {true:.4f}",
            f"{what} {found:.4f} is more than 5 standard deviations from the true {true:.4f}",
            device=device,
            data={"seed": task.seed},
        )
        for name, what, found, true, bound in triples
    ]


def gradients(
    task: Task, device: str, single: list[float], double: list[float], formula: list[float], numeric: list[float]
) -> list[Message]:
    """Judge autograd's gradients: float32 against hand-derived ones, float64 against numeric ones."""
    scale = largest([abs(value) for value in formula])
    count = len(formula)
    return [
        within(
            task.name + ".gradient-formula",
            distance(single, formula) / scale,
            FORMULA_BOUND,
            f"autograd's {count} derivatives agree with the hand-derived formulae",
            "autograd's derivatives differ from the hand-derived formulae",
            unit="of the largest",
            device=device,
        ),
        within(
            task.name + ".gradient-numeric",
            distance(double, numeric) / scale,
            NUMERIC_BOUND,
            f"autograd's {count} derivatives agree with central differences of the loss",
            "autograd's derivatives differ from central differences of the loss",
            unit="of the largest",
            device=device,
        ),
    ]


def tilt_caught(task: Task, device: str, parameters: Sequence[float], tilt: float = 0.1) -> Message:
    """Canary: the same line must fail against data whose slope is another one."""
    name = "linear.canary-slope"
    if task.epochs < SETTLED_EPOCHS:
        return check(name, "skip", f"the bounds it tries are judged from {SETTLED_EPOCHS} epochs on", device=device)
    caught = against_least_squares(tilted(task, tilt), device, parameters)[0]["verdict"] == "fail"
    return canary(name, device, caught, f"data with a slope wrong by {tilt:g}")


def spike_caught(task: Task, device: str, step: int, trace: Trace, yardstick: Trace) -> Message:
    """Canary: a training with one gradient spiked at *step* must fail by its step losses."""
    verdict = step_losses(task, device, trace, yardstick)
    left = distance(trace.parameters, yardstick.parameters)
    what = f"a gradient spiked by +10 at step {step} (which leaves the final weights off by {left:.1e})"
    return canary(task.name + ".canary-gradient", device, verdict["verdict"] == "fail", what)


def canary(name: str, device: str, caught: bool, what: str) -> Message:
    """Return the check of one deliberate fault; one that is not caught makes the run void."""
    return check(
        name,
        "pass" if caught else "fail",
        "deliberate fault caught: " + what
        if caught
        else f"void: the deliberate fault was not caught ({what}), so nothing that passed here means anything",
        measured="caught" if caught else "not caught",
        expected="caught",
        device=device,
    )


def largest(values: Sequence[float]) -> float:
    """Return the largest value, NaN when any is NaN (max() would lose it), 0 when there is none. Pure."""
    return math.nan if any(math.isnan(value) for value in values) else max(values, default=0.0)


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the largest absolute difference, infinity when the lengths differ. Pure."""
    return largest([abs(x - y) for x, y in zip(a, b)]) if len(a) == len(b) else math.inf
