"""One proof on one device: train, train again, compare, spoil on purpose, save and load.

It exercises one multiprocessor and no tensor core; what that shows and does not show is SCOPE.
"""

from __future__ import annotations

import itertools
import os

from gpuprov.proof.check import check, thinned
from gpuprov.proof.training import device as on_device
from gpuprov.proof.training import judge
from gpuprov.proof.training.data import (
    BATCH,
    INTERCEPT,
    LEARNING_RATE,
    POINTS,
    SLOPE,
    STEPS_PER_EPOCH,
    linear_task,
    mlp_task,
    shortened,
)
from gpuprov.proof.training.replay import COMPARED_EPOCHS, Network, Trace, central_differences, flat, replay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.training.data import Task
    from gpuprov.proof.training.device import Tamper
    from gpuprov.proof.worker import Report

SCOPE = {
    "cuda": "It exercises one SM and no tensor core: it proves driver + CUDA + torch + autograd, not hardware health.",
    "cpu": "On the CPU: this proves Python + torch + autograd; no GPU was measured.",
}
EPOCHS = {"linear": 100, "mlp": 10}
#: A network whose ReLU inputs come closer to zero than this may part from float64 on a healthy device; about
#: every second draw of data does, and one in fifty then parts by more than the bounds.
LEAST_MARGIN = 2e-6
#: The canary's gradient is spiked at this step, or half way in a shorter training.
SPIKED_STEP = 100
#: So many epochs later nothing of the spike is left in a line's weights (a factor of 0.66 per epoch).
FORGOTTEN_EPOCHS = 30


def prove(
    name: str,
    device: str,
    report: Report,
    folder: str,
    seed: int,
    epochs: int | None = None,
    drawn: bool = False,
    tamper: Tamper | None = None,
) -> None:
    """Run the proof *name* ("linear" or "mlp") on *device* and report its checks one by one.

    Weights go to folder/<name>_model.pth. drawn: the seed is random, so the line is also judged against
    the truth. tamper spoils the first training (tests). Raises RuntimeError (torch's) when a device fails.
    """
    epochs = epochs or EPOCHS[name]
    report.stage(f"{name} on {device}: float64 replay")
    task, yardstick = chosen(name, seed, epochs)
    report.text(f"{described(task)}, on {device}, seed {seed}")
    report.stage(f"{name} on {device}: training")
    trace, model = on_device.train(
        task, device, list(yardstick.after), lambda epoch, loss: report.epoch(name, epoch, epochs, loss), tamper
    )
    _judge_training(task, device, report, trace, yardstick, drawn)
    report.stage(f"{name} on {device}: training a second time")
    second, _ = on_device.train(task, device)
    report.check(_deterministic(task, device, trace, second))
    report.stage(f"{name} on {device}: gradients")
    _judge_gradients(task, device, report)
    report.stage(f"{name} on {device}: saving and loading weights")
    report.check(_saved(task, device, model, os.path.join(folder, name + "_model.pth")))
    report.stage(f"{name} on {device}: canaries")
    _canaries(task, device, report, trace, yardstick)


def chosen(name: str, seed: int, epochs: int) -> tuple[Task, Trace]:
    """Return the task of *seed* and its replay. Pure.

    For the network, data are drawn anew (seed, seed + 2^32, ...) until no ReLU input of the compared
    epochs comes close to zero: the verdict must not hang on which way a tie is rounded.
    """
    if name == "linear":
        task = linear_task(seed, epochs)
        return task, replay(task, {min(epochs, FORGOTTEN_EPOCHS)})
    keep = {1, min(epochs, COMPARED_EPOCHS)}
    for draw in itertools.count():
        task = mlp_task(seed + (draw << 32), epochs)
        yardstick = replay(task, keep, LEAST_MARGIN)
        if yardstick.margin >= LEAST_MARGIN:
            return task, yardstick
    raise AssertionError


def described(task: Task) -> str:
    """Return what is trained, for a person. Pure."""
    what = (
        f"linear regression: y = {SLOPE:g}x + {INTERCEPT:g} + U(-0.5, 0.5)"
        if task.name == "linear"
        else "MLP {} with ReLU".format("-".join(map(str, task.widths)))
    )
    return f"{what}, {POINTS} points, batch {BATCH}, SGD {LEARNING_RATE:g}, {task.epochs} epochs"


def scope(device: str) -> str:
    """Return the sentence on what the two proofs show on *device*, and what they do not. Pure."""
    return SCOPE["cuda" if device.startswith("cuda") else "cpu"]


def _judge_training(task: Task, device: str, report: Report, trace: Trace, yardstick: Trace, drawn: bool) -> None:
    losses = [task.epoch_loss(trace.steps, epoch) for epoch in range(task.epochs)]
    if task.name == "linear":
        checks = [judge.line_parameters(task, device, trace, yardstick)]
    else:
        checks = judge.network_parameters(task, device, trace, yardstick)
    checks[0]["data"].update(losses=thinned(losses), epochs=task.epochs, proves=scope(device))
    checks.append(judge.step_losses(task, device, trace, yardstick))
    if task.name == "linear":
        checks += judge.against_least_squares(task, device, trace.parameters)
        if drawn:
            checks += judge.against_truth(task, device, trace.parameters)
    for item in checks:
        report.check(item)


def _deterministic(task: Task, device: str, first: Trace, second: Trace) -> Message:
    """Compare the bits of two runs of the same training; their hashes are what hosts vote on."""
    ours = {"steps_sha256": first.steps, "parameters_sha256": first.parameters}
    hashes = {name: on_device.fingerprint(values) for name, values in ours.items()}
    again = {"steps_sha256": second.steps, "parameters_sha256": second.parameters}
    same = all(on_device.fingerprint(values) == hashes[name] for name, values in again.items())
    step = next((i + 1 for i, (a, b) in enumerate(zip(first.steps, second.steps)) if a != b), 0)
    where = f"from step {step} on" if step else "in the final parameters"
    return check(
        task.name + ".deterministic",
        "pass" if same else "fail",
        "two runs of the same training gave the same bits in every step and every parameter"
        if same
        else f"two runs of the same training on the same device differ {where}",
        measured=hashes["steps_sha256"][:16],
        expected=on_device.fingerprint(second.steps)[:16],
        unit="SHA-256 of the step losses",
        device=device,
        action="none" if same else "isolate",
        data=dict(hashes, seed=task.seed),
    )


def _judge_gradients(task: Task, device: str, report: Report) -> None:
    """Compare gradients on the batch whose ReLU inputs stay farthest from zero, where loss has a kink."""
    network = Network(task.layers)
    batch = max(task.batches(0)[:-1], key=lambda b: network.margin([task.x[i] for i in b]))
    xs, ys = [task.x[i] for i in batch], [task.y[i] for i in batch]
    single = on_device.gradients(task, device, batch)
    double = on_device.gradients(task, device, batch, double=True)
    formula = flat(network.gradients(xs, ys)[1])
    for item in judge.gradients(task, device, single, double, formula, central_differences(network, xs, ys)):
        report.check(item)


def _saved(task: Task, device: str, model: Any, path: str) -> Message:
    name = task.name + ".saved-weights"
    try:
        same_bits, same_predictions = on_device.save_and_load(model, task, device, path)
    except OSError as error:
        return check(name, "unknown", f"weights could not be saved and loaded: {error}", device=device)
    same = same_bits and same_predictions
    return check(
        name,
        "pass" if same else "fail",
        f"weights written to {os.path.basename(path)} and loaded back: same bits, same predictions"
        if same
        else "weights loaded back from {} differ in their {}".format(path, "predictions" if same_bits else "bits"),
        measured="equal" if same else "different",
        expected="equal",
        device=device,
        data={"size_bytes": os.path.getsize(path)},
    )


def _canaries(task: Task, device: str, report: Report, trace: Trace, yardstick: Trace) -> None:
    epochs = max(yardstick.after)
    steps = epochs * STEPS_PER_EPOCH
    step = min(SPIKED_STEP, steps // 2)
    short = shortened(task, epochs)
    spoiled, _ = on_device.train(short, device, tamper=lambda at, model: _spike(model) if at == step else None)
    good = Trace(yardstick.steps[:steps], yardstick.after[epochs], {})
    report.check(judge.spike_caught(short, device, step, spoiled, good))
    if task.name == "linear":
        report.check(judge.tilt_caught(task, device, trace.parameters))


def _spike(model: Any) -> None:
    gradient = next(model.parameters()).grad
    gradient[(0,) * gradient.dim()] += 10.0
