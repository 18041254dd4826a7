"""The same trainings with torch, on the device that the host has.

Model and data are moved before training and before the optimiser is made: an optimiser made
first would keep the parameters of the other device.
"""

from __future__ import annotations

import hashlib
import os
import struct

import torch

from gpuprov.proof.training.data import BATCH, LEARNING_RATE
from gpuprov.proof.training.replay import Trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from typing import Any

    from gpuprov.proof.training.data import Layer, Task

    #: Gets (step, model) between the backward pass and the optimiser's step: canaries and tests spoil there.
    Tamper = Callable[[int, Any], None]


def prepare() -> None:
    """Make torch compute the same thing twice: float32 without TF32, deterministic algorithms.

    One thread, since these tensors are tiny: starting threads would take longer than the arithmetic.
    """
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    # The same switch as use_deterministic_algorithms(True), which also imports the compiler: 3 s more.
    torch.set_deterministic_debug_mode("error")
    torch.backends.cudnn.benchmark = False


def build(task: Task, device: str, dtype: Any = None) -> Any:
    """Return the task's network with its start values, on *device*."""
    layers: list[Any] = []
    for fan_in, fan_out in zip(task.widths, task.widths[1:]):
        layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
    layers.pop()
    model = layers[0] if len(layers) == 1 else torch.nn.Sequential(*layers)
    with torch.no_grad():
        for parameter, values in zip(model.parameters(), _tensors(task.layers)):
            parameter.copy_(values)
    return model.to(device=device, dtype=dtype or torch.float32)


def _tensors(layers: Iterable[Layer]) -> Iterable[Any]:
    for rows, bias in layers:
        yield torch.tensor(rows, dtype=torch.float32)
        yield torch.tensor(bias, dtype=torch.float32)


def tensors(task: Task, device: str, dtype: Any = None) -> tuple[Any, Any]:
    """Return all points of the task, x of shape (n, inputs) and y of shape (n, 1), on *device*."""
    dtype = dtype or torch.float32
    x = torch.tensor(task.x, dtype=dtype).to(device)
    return x, torch.tensor(task.y, dtype=dtype).reshape(-1, 1).to(device)


def train(
    task: Task,
    device: str,
    keep: Collection[int] = (),
    on_epoch: Callable[[int, float], None] | None = None,
    tamper: Tamper | None = None,
) -> tuple[Trace, Any]:
    """Train *task* on *device*; return its trace and the trained model.

    on_epoch gets (epoch counted from 1, mean loss) after each one: the step losses stay on the
    device until then, so that a GPU is not stopped at every step. Raises RuntimeError (torch's).
    """
    model = build(task, device)
    x, y = tensors(task, device)
    optimiser = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    mean_squared_error = torch.nn.MSELoss()
    steps: list[float] = []
    after = {}
    for epoch in range(task.epochs):
        order = torch.tensor(task.order(epoch)).to(device)
        losses: list[Any] = []
        for bx, by in zip(x[order].split(BATCH), y[order].split(BATCH)):
            optimiser.zero_grad()
            loss = mean_squared_error(model(bx), by)
            loss.backward()
            if tamper is not None:
                tamper(len(steps) + len(losses), model)
            optimiser.step()
            losses.append(loss.detach())
        steps += torch.stack(losses).tolist()
        if epoch + 1 in keep:
            after[epoch + 1] = parameters(model)
        if on_epoch is not None:
            on_epoch(epoch + 1, task.epoch_loss(steps, epoch))
    return Trace(steps, parameters(model), after), model


def parameters(model: Any) -> list[float]:
    """Return the model's parameters, flat, as exact Python floats."""
    return [value for parameter in model.parameters() for value in parameter.detach().reshape(-1).tolist()]


def gradients(task: Task, device: str, batch: list[int], double: bool = False) -> list[float]:
    """Return autograd's derivative of the loss on *batch* by every start value, flat."""
    dtype = torch.float64 if double else torch.float32
    model = build(task, device, dtype)
    x, y = tensors(task, device, dtype)
    index = torch.tensor(batch).to(device)
    torch.nn.functional.mse_loss(model(x[index]), y[index]).backward()
    return [value for parameter in model.parameters() for value in parameter.grad.reshape(-1).tolist()]


def save_and_load(model: Any, task: Task, device: str, path: str) -> tuple[bool, bool]:
    """Save the weights to *path*, load them into a fresh model; return whether bits and predictions agree.

    Raises OSError or RuntimeError (torch's) when the file cannot be written or read.
    """
    torch.save(model.state_dict(), path)
    loaded = build(task, device)
    loaded.load_state_dict(torch.load(path, map_location=device, weights_only=True))
    x, _ = tensors(task, device)
    with torch.no_grad():
        same_predictions = bool(torch.equal(model(x), loaded(x)))
    return bits(parameters(model)) == bits(parameters(loaded)), same_predictions and os.path.getsize(path) > 0


def bits(values: list[float]) -> bytes:
    """Return float32 numbers as little-endian bytes. Pure."""
    return struct.pack(f"<{len(values)}f", *values)


def fingerprint(values: list[float]) -> str:
    """Return the SHA-256 of float32 numbers' bytes: equal on every device that computed the same bits."""
    return hashlib.sha256(bits(values)).hexdigest()
