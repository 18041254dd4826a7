"""A small network with batch normalisation beside its float64 replay: P0 for running statistics and the two modes."""

from __future__ import annotations

from gpuprov.proof.check import check, within
from gpuprov.proof.parts import Part
from gpuprov.proof.training.judge import canary, distance, largest
from gpuprov.proof.training.norm import (
    EPOCHS,
    EPSILON,
    HIDDEN,
    INPUTS,
    MOMENTUM,
    RATE,
    Norm,
    NormTask,
    numeric,
    trained,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context
    from gpuprov.proof.worker import Report

    #: Gets (step from 0, model) between the backward pass and the optimiser's step.
    Tamper = Callable[[int, Any], None]

#: What a healthy device may differ by; what it does, is in docs/training.md.
STEP_BOUND, PARAMETER_BOUND, RUNNING_BOUND, MODE_BOUND = 2e-5, 1e-5, 2e-5, 1e-5
FORMULA_BOUND, NUMERIC_BOUND = 1e-5, 1e-7
#: The two modes have to differ by this much, or one of them was never used.
LEAST_DIFFERENCE = 1e-3
#: The canary's gradient is spiked at this step.
SPIKED_STEP = 40


class Result:
    """What a training with torch leaves: flat numbers, and predictions for the first batch in both modes."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.parameters: list[float] = []
        self.mean: list[float] = []
        self.variance: list[float] = []
        self.training: list[float] = []
        self.later: list[float] = []
        self.counted = 0


def build(task: NormTask, device: str, double: bool = False) -> Any:
    """Return the network with its start values on *device*."""
    import torch

    model = torch.nn.Sequential(
        torch.nn.Linear(INPUTS, HIDDEN, bias=False),
        torch.nn.BatchNorm1d(HIDDEN, eps=EPSILON, momentum=MOMENTUM),
        torch.nn.Tanh(),
        torch.nn.Linear(HIDDEN, 1),
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(task.weight))
        model[3].weight.copy_(torch.tensor([task.last]))
        model[3].bias.zero_()
    return model.to(device=device, dtype=torch.float64 if double else torch.float32)


def _batch(task: NormTask, number: int, device: str, double: bool = False) -> tuple[Any, Any]:
    import torch

    dtype = torch.float64 if double else torch.float32
    x, y = task.batch(number)
    return torch.tensor(x, dtype=dtype).to(device), torch.tensor(y, dtype=dtype).to(device)


def train(task: NormTask, device: str, tamper: Tamper | None = None) -> Result:
    """Train with torch on *device*. Raises RuntimeError (torch's)."""
    import torch

    model, found, losses = build(task, device), Result(), []
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
    batches = [_batch(task, number, device) for number in range(len(task.batches()))]
    for epoch in range(EPOCHS):
        for number, (x, y) in enumerate(batches):
            optimiser.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x).squeeze(1), y)
            loss.backward()
            if tamper is not None:
                tamper(epoch * len(batches) + number, model)
            optimiser.step()
            losses.append(loss.detach())
    found.losses = torch.stack(losses).tolist()
    found.parameters = [value for p in model.parameters() for value in p.detach().reshape(-1).tolist()]
    found.mean, found.variance = model[1].running_mean.tolist(), model[1].running_var.tolist()
    found.counted = int(model[1].num_batches_tracked)
    with torch.no_grad():
        found.later = model.eval()(batches[0][0]).squeeze(1).tolist()
        found.training = model.train()(batches[0][0]).squeeze(1).tolist()
    return found


def judged(device: str, found: Result, network: Norm, losses: Sequence[float], task: NormTask) -> list[Message]:
    """Compare a training with its replay. Pure."""
    errors = [abs(a - b) / b for a, b in zip(found.losses, losses)]
    step = next((i + 1 for i, error in enumerate(errors) if not error <= STEP_BOUND), 0)
    xs, _ = task.batch(0)
    later = network.later(xs)
    modes = max(distance(found.later, later), distance(found.training, _in_training(network, xs)))
    return [
        within(
            "batchnorm.step-losses",
            largest(errors),
            STEP_BOUND,
            f"the loss of each of {len(losses)} steps agrees with a float64 replay",
            f"from step {step} of {len(losses)} on the loss differs from a float64 replay of the same batches",
            unit="relative",
            device=device,
            data={"seed": task.seed},
        ),
        within(
            "batchnorm.parameters",
            distance(found.parameters, network.flat()),
            PARAMETER_BOUND,
            f"all {len(found.parameters)} parameters agree with a float64 replay",
            "parameters differ from a float64 replay of the same batches",
            device=device,
        ),
        within(
            "batchnorm.running",
            _running_error(found, network) if found.counted == len(losses) else float("nan"),
            RUNNING_BOUND,
            f"running mean and variance of {HIDDEN} units after {found.counted} batches agree with float64",
            f"running mean or variance after {found.counted} of {len(losses)} batches differ from float64",
            unit="relative",
            device=device,
        ),
        within(
            "batchnorm.modes",
            modes,
            MODE_BOUND,
            "predictions in training (the batch's own statistics) and later (the running ones) agree with float64",
            "predictions in training or later differ from float64",
            device=device,
        ),
        _differ(device, distance(found.later, found.training), distance(later, _in_training(network, xs))),
    ]


def _running_error(found: Result, network: Norm) -> float:
    pairs = zip([*found.mean, *found.variance], [*network.mean, *network.variance])
    return largest([abs(a - b) / (abs(b) + 0.1) for a, b in pairs])


def _differ(device: str, found: float, wanted: float) -> Message:
    """Judge that the two modes are two: by as much as the replay says."""
    good = found >= LEAST_DIFFERENCE and abs(found - wanted) <= 2 * MODE_BOUND
    return check(
        "batchnorm.two-modes",
        "pass" if good else "fail",
        f"the same weights predict otherwise in training than later, by up to {found:.4f}"
        if good
        else f"predictions in training and later differ by {found:.4g}, but should by {wanted:.4g}",
        measured=found,
        expected=f"{wanted:.4f} +/- {2 * MODE_BOUND:g}",
        device=device,
        action="none" if good else "isolate",
    )


def _in_training(network: Norm, xs: Sequence[Sequence[float]]) -> list[float]:
    from gpuprov.proof.training.norm import moments

    return network.predictions(xs, *moments(network.sums(xs)))


def gradients(task: NormTask, device: str) -> list[Message]:
    """Judge autograd's gradients: float32 against the formulae, float64 against central differences."""
    import torch

    found = []
    for double in (False, True):
        model = build(task, device, double)
        x, y = _batch(task, 0, device, double)
        torch.nn.functional.mse_loss(model(x).squeeze(1), y).backward()
        found.append([value for p in model.parameters() for value in p.grad.reshape(-1).tolist()])
    network, (xs, ys) = Norm(task), task.batch(0)
    formula = network.gradients(xs, ys)[1]
    scale = largest([abs(value) for value in formula])
    triples = (
        ("formula", found[0], formula, FORMULA_BOUND, "the hand-derived formulae"),
        ("numeric", found[1], numeric(network, xs, ys), NUMERIC_BOUND, "central differences of the loss"),
    )
    return [
        within(
            f"batchnorm.gradient-{kind}",
            distance(mine, right) / scale,
            bound,
            f"autograd's {len(formula)} derivatives agree with {what}",
            f"autograd's derivatives differ from {what}",
            unit="of the largest",
            device=device,
        )
        for kind, mine, right, bound, what in triples
    ]


def spike(model: Any) -> None:
    """Spoil one gradient, as the canary does."""
    model[0].weight.grad[0, 0] += 1.0


def prove(context: Context, report: Report, tamper: Tamper | None = None) -> None:
    """Report the checks of the network with batch normalisation. tamper spoils the training (tests)."""
    from gpuprov.proof.training import gpt_train

    device = context.device
    task = NormTask(context.seed)
    report.stage(f"batchnorm on {device}: float64 replay")
    network, losses = trained(task)
    with gpt_train.modes(device, deterministic=True):
        report.stage(f"batchnorm on {device}: training")
        for found in judged(device, train(task, device, tamper), network, losses, task):
            report.check(found)
        report.stage(f"batchnorm on {device}: gradients")
        for found in gradients(task, device):
            report.check(found)
        report.stage(f"batchnorm on {device}: canaries")
        spoiled = train(task, device, lambda step, model: spike(model) if step == SPIKED_STEP else None)
        caught = judged(device, spoiled, network, losses, task)[0]["verdict"] == "fail"
        report.check(canary("batchnorm.canary-gradient", device, caught, f"a gradient spiked at step {SPIKED_STEP}"))
        # By n instead of n - 1: the most common mistake.
        spoiled.mean, spoiled.counted = list(network.mean), len(losses)
        spoiled.variance = [value * 15.0 / 16.0 for value in network.variance]
        caught = judged(device, spoiled, network, losses, task)[2]["verdict"] == "fail"
        report.check(canary("batchnorm.canary-running", device, caught, "a running variance by n instead of n - 1"))


_READS = "trains on the device, running statistics and both modes compared with float64"
PARTS = (Part("batchnorm", "nightly", "device", prove, _READS, deadline_s=60.0, loads=True),)
