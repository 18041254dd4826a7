"""Trains the GPT as people do, and notes what can be judged: losses, norms, bits, times, memory. Imports torch."""

from __future__ import annotations

import contextlib
import hashlib
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpuprov.proof.bench import device as on
from gpuprov.proof.training.gpt_model import Gpt, loss_of, sequences
from gpuprov.proof.training.stream import Chain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from gpuprov.proof.training.sizes import Size

    #: Gets (step from 0, model) between the backward pass and the optimiser's step: canaries and tests spoil there.
    Tamper = Callable[[int, Any], None]

#: Steps whose memory and time are not judged: caches fill, libraries choose.
WARM_UP = 5
#: Steps that are timed as one sample.
TIMED_STEPS = 5
CLIPPED_AT = 1.0


@contextlib.contextmanager
def modes(device: str, deterministic: bool = False) -> Iterator[None]:
    """Set what a training depends on, then restore what the process had.

    deterministic: the same bits each time, or an error from whatever cannot promise that; attention by one kernel.
    """
    gpu = on.on_gpu(device)
    before = torch.get_float32_matmul_precision(), torch.get_deterministic_debug_mode(), torch.get_num_threads()
    benchmark = torch.backends.cudnn.benchmark
    torch.set_float32_matmul_precision("highest")
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    torch.backends.cudnn.benchmark = False
    if gpu:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)  # small on a CPU: starting threads would take longer, and change sums
    one = [SDPBackend.FLASH_ATTENTION if half(device) else SDPBackend.MATH]
    try:
        with sdpa_kernel(one) if deterministic else contextlib.nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.set_deterministic_debug_mode(before[1])
        torch.set_num_threads(before[2])
        torch.backends.cudnn.benchmark = benchmark
        if gpu:
            torch.cuda.empty_cache()


def half(device: str) -> Any:
    """Return the type that autocast uses on *device*: bfloat16 from compute capability 8.0 on, None for float32."""
    if on.on_gpu(device) and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    return None


def kind(device: str) -> str:
    """Return in what products are computed, for a person."""
    return "bfloat16" if half(device) else "float32"


def autocast(device: str) -> Any:
    """Return the context in which the forward pass runs."""
    kind = half(device)
    return torch.autocast("cuda", dtype=kind) if kind else contextlib.nullcontext()


class Batches:
    """The tokens of every step, in pinned memory, sent ahead by a stream of their own.

    While a step is computed, the next one's tokens are copied. sums: what arrived, added up where it arrived.
    """

    def __init__(self, size: Size, device: str, seed: int) -> None:
        chain = Chain(size.vocabulary, seed)
        tokens, surprise = sequences(chain, size.batch * size.steps, size.context + 1, seed)
        shape = (size.steps, size.batch, size.context)
        self.truths: list[float] = surprise.reshape(*shape).mean(dim=(1, 2)).tolist()
        self.host = tokens.view(size.steps, size.batch, size.context + 1)
        self.device = device
        self._ahead: Any = None
        self._next: Any = None
        if on.on_gpu(device):
            self.host = self.host.pin_memory()
            self._ahead = torch.cuda.Stream(device)
        self.weights = on.scrambled(torch.arange(size.context + 1, dtype=torch.int64), 1)
        self.sent = sum(int(self._sum(step, tokens)) for step, tokens in enumerate(self.host))
        self.weights = self.weights.to(device)
        self.arrived = torch.zeros((), dtype=torch.int64, device=device)

    def __iter__(self) -> Iterator[Any]:
        self._send(0)
        for step in range(len(self.host)):
            tokens = self._received()
            if step + 1 < len(self.host):
                self._send(step + 1)
            self.arrived += self._sum(step, tokens)
            yield tokens

    def _sum(self, step: int, tokens: Any) -> Any:
        """Return a sum in which each token counts by its place and its step."""
        return (tokens * self.weights).sum() * (step % 1024 + 1)

    def _send(self, step: int) -> None:
        if self._ahead is None:
            self._next = self.host[step].to(self.device)
            return
        with torch.cuda.stream(self._ahead):
            self._next = self.host[step].to(self.device, non_blocking=True)

    def _received(self) -> Any:
        tokens = self._next
        if self._ahead is not None:
            now = torch.cuda.current_stream(self.device)
            now.wait_stream(self._ahead)
            tokens.record_stream(now)
        return tokens


class Trace:
    """What a training leaves.

    steps: the bits of each step: (loss, gradients, weights). allocated: pieces of memory that the device was asked for
    after the warm-up. seconds: per step, one number per sample. peak: bytes that tensors took at most, of a GPU.
    held: bytes of weights, gradients and moments.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.steps: list[tuple[int, int, int]] = []
        self.state = ""
        self.seconds: list[float] = []
        self.allocated: int | None = None
        self.peak = self.held = 0
        self.truths: list[float] = []
        self.copied = True

    def digest(self) -> str:
        """Return the SHA-256 of every step's bits and of the final state's. Pure."""
        return hashlib.sha256(repr((self.steps, self.state)).encode("ascii")).hexdigest()


def train(
    size: Size,
    device: str,
    seed: int,
    hashed: bool = False,
    tamper: Tamper | None = None,
    model: Any = None,
    batches: Batches | None = None,
) -> Trace:
    """Train on *device*; nothing waits for the device but the clock of every few steps. Raises RuntimeError (torch's).

    hashed: note the bits of each step. model: instead of a new one (a compiled one).
    """
    batches = batches or Batches(size, device, seed)
    model = Gpt(size, device, seed) if model is None else model
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = adamw(parameters, size.rate, device)
    trace, losses, norms, sums = Trace(), [], [], []
    watch = _Watch(device, trace.seconds)
    for step, tokens in enumerate(batches):
        watch.before(step)
        for group in optimiser.param_groups:
            group["lr"] = size.rate * min(1.0, (step + 1) / WARM_UP)
        optimiser.zero_grad(set_to_none=True)
        with autocast(device):
            loss = loss_of(model(tokens[:, :-1]), tokens)
        loss.backward()
        if tamper is not None:
            tamper(step, model)
        sums.append(bit_sum([p.grad for p in parameters]) if hashed else None)
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, CLIPPED_AT).detach())
        optimiser.step()
        losses.append(loss.detach())
        if hashed:
            sums[-1] = torch.stack([sums[-1], bit_sum(list(model.parameters()))])
    on.wait(device)
    trace.allocated = int(_asked(device) - watch.asked) if on.on_gpu(device) and size.steps > WARM_UP else None
    trace.peak = int(torch.cuda.max_memory_allocated(device)) if on.on_gpu(device) else 0
    trace.held = held(model, optimiser)
    trace.losses, trace.norms = torch.stack(losses).tolist(), torch.stack(norms).tolist()
    trace.truths, trace.copied = batches.truths, int(batches.arrived) == batches.sent
    if hashed:
        bits = torch.stack(losses).view(torch.int32).tolist()
        trace.steps = [(bit, *two) for bit, two in zip(bits, torch.stack(sums).tolist())]
        trace.state = state_sum(model, optimiser)
    return trace


class _Watch:
    """Time every few steps after the warm-up into *seconds* (per step), and note what was allocated until then."""

    def __init__(self, device: str, seconds: list[float]) -> None:
        self.device, self.seconds = device, seconds
        self.asked = self._since = 0.0

    def before(self, step: int) -> None:
        if step == WARM_UP:
            self.asked = _asked(self.device)
        if step >= WARM_UP and (step - WARM_UP) % TIMED_STEPS == 0:
            on.wait(self.device)
            now = time.perf_counter()
            if step > WARM_UP:
                self.seconds.append((now - self._since) / TIMED_STEPS)
            self._since = now


def adamw(parameters: Any, rate: float, device: str) -> Any:
    """Return the optimiser; on a GPU in one kernel for all parameters."""
    return torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.95), weight_decay=0.01, fused=on.on_gpu(device))


def held(model: Any, optimiser: Any) -> int:
    """Return the bytes of weights, gradients and moments."""
    tensors = [*model.parameters(), *(p.grad for p in model.parameters() if p.grad is not None)]
    tensors += [value for state in optimiser.state.values() for value in state.values() if value.dim()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _asked(device: str) -> float:
    """Return how many pieces of memory torch's allocator has asked *device* for until now."""
    return float(torch.cuda.memory_stats(device)["segment.all.allocated"]) if on.on_gpu(device) else 0.0


def bit_sum(tensors: list[Any]) -> Any:
    """Return the sum of all bits as integers, each tensor with an odd weight of its own: an int64 on the device.

    Integers add up to the same in any order, and one flipped bit always changes the sum.
    """
    sums = [t.detach().reshape(-1).view(on.INTEGERS[t.element_size()]).sum(dtype=torch.int64) for t in tensors]
    every = torch.stack(sums)
    return (every * (torch.arange(len(sums), device=every.device) * 2 + 1)).sum()


def state_sum(model: Any, optimiser: Any) -> str:
    """Return 128 bits for each weight and moment of the optimiser, hashed: they depend on every bit and its place."""
    found = hashlib.sha256()
    for parameter in model.parameters():
        moments = [value for _, value in sorted(optimiser.state[parameter].items()) if value.dim()]
        for tensor in (parameter.detach(), *moments):
            rows = tensor if tensor.dim() == 2 else tensor.reshape(1, -1)
            found.update(on.checksum(rows.contiguous()).encode("ascii"))
    return found.hexdigest()
