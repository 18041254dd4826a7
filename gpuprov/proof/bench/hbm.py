"""The device's memory: how fast it is copied, and whether every byte that is free keeps what is written to it."""

from __future__ import annotations

import time

from gpuprov.proof.bench.numbers import ranges
from gpuprov.proof.check import check, measurement
from gpuprov.proof.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context
    from gpuprov.proof.worker import Report

    #: Gets what was written, before it is read back: canaries and tests spoil there.
    Tamper = Callable[[Any], None]

#: Bytes that are copied: far more than a GPU's cache holds. A CPU, where this only has to run, copies 16 MiB.
COPIED, CPU_COPIED = 1 << 30, 1 << 24
#: Left to others, and for comparing.
SPARED = 1 << 30
CHUNK, CPU_CHUNK, CPU_TESTED = 1 << 30, 1 << 20, 1 << 22
#: 64-bit words that are compared at once: what that needs has to fit into what is spared.
STEP = 1 << 22
PATTERNS = ("address", "address inverted", "walking ones", "walking zeros", "random", "random inverted")
#: Bad words that are looked at one by one.
LISTED = 4096
M64 = (1 << 64) - 1
BLIND = "canary: one flipped bit was not noticed when what had been copied was compared: this run proves nothing"


def copy(context: Context, budget_s: float, tamper: Tamper | None = None) -> Message:
    """Return the check of copying within the device's memory: bytes read and bytes written, by seconds."""
    import torch

    from gpuprov.proof.bench import device as on

    device, name = context.device, on.named(context.device, "hbm.copy")
    size = COPIED if on.on_gpu(device) else CPU_COPIED
    free = on.free_bytes(device, on.GIB)
    data = on.identity(context.device)
    if free < 2 * size + on.GIB // 4:
        reason = f"only {free / on.GIB:.1f} GiB of memory are free, and copying needs {2 * size / on.GIB:.0f} GiB"
        return check(name, "unknown", reason, device=device, action="restart job", data=data)
    with on.prepared(device):
        words = size // 8
        source = torch.empty(words, dtype=torch.int64, device=device)
        target = torch.zeros(words, dtype=torch.int64, device=device)
        fill(source, "random", 0, context.seed)
        seconds = on.sampled(device, lambda: target.copy_(source), budget_s)
        if tamper is not None:
            tamper(target)
        bad = compare(target, "random", 0, context.seed)
        blind = not bad.count and not sees(target, "random", 0, context.seed)
    speeds = [2.0 * size / s / 1e9 for s in seconds]
    data["size_bytes"] = size
    if blind:
        reason, fault = BLIND, {"verdict": "fail"}
    elif bad.count:
        reason, fault = f"a copy within the memory differs from its source in {bad.text(0)}", _failed(device)
        data["evidence"] = bad.lines(0)
    else:
        reason, fault = f"{len(seconds)} samples of copying {size >> 20} MiB, read and write counted, compared", {}
    return measurement(name, speeds, "GB/s", "higher", reason, device=device, data=data, **fault)


def _failed(device: str) -> dict[str, str]:
    return {"verdict": "fail", "action": "isolate" if device.startswith("cuda") else "none"}


class Bad:
    """Words that are not what was written: how many, which ones at first, and which bits."""

    __slots__ = ("bits", "count", "first", "words")

    def __init__(self) -> None:
        self.count = 0
        self.words: list[int] = []
        self.bits = 0
        self.first = ""

    def text(self, address: int) -> str:
        """Return what is wrong as a phrase; *address* is that of word 0."""
        found = ranges(self.words, gap=512)
        low, high = found[0]
        where = f"{address + 8 * low:#x}-{address + 8 * high + 7:#x}"
        more = f" and {len(found) - 1} more ranges" if len(found) > 1 else ""
        return f"{self.count} words of 8 bytes ({where}{more}), bits {self.bits:#x}"

    def lines(self, address: int) -> list[str]:
        """Return the evidence: up to eight ranges, and the first bad word."""
        found = ranges(self.words, gap=512)[:8]
        return [f"bytes {address + 8 * a:#x}-{address + 8 * b + 7:#x}" for a, b in found] + [self.first]


def fill(words: Any, pattern: str, base: int, seed: int) -> None:
    """Write *pattern* to *words* (int64, flat), the first of which is word number *base* of all that is tested."""
    for start in range(0, len(words), STEP):
        piece = words[start : start + STEP]
        piece.copy_(expected(len(piece), pattern, base + start, seed, words.device))


def expected(count: int, pattern: str, base: int, seed: int, device: Any) -> Any:
    """Return *count* words of *pattern* from word number *base* on. The same on every device."""
    import torch

    from gpuprov.proof.bench.device import scrambled

    index = torch.arange(base, base + count, dtype=torch.int64, device=device)
    if pattern.startswith("random"):
        found = scrambled(index & 0xFFFFFFFF, seed) << 32
        found ^= scrambled(index ^ (index >> 32), seed + 1)
    elif pattern.startswith("walking"):
        found = torch.ones_like(index) << ((index + seed) % 64)
    else:
        found = index
    return found.bitwise_not_() if pattern.endswith(("inverted", "zeros")) else found


def compare(words: Any, pattern: str, base: int, seed: int) -> Bad:
    """Read *words* back and return those that are not *pattern*."""
    bad = Bad()
    for start in range(0, len(words), STEP):
        piece = words[start : start + STEP]
        right = expected(len(piece), pattern, base + start, seed, words.device)
        differs = piece != right
        count = int(differs.sum())
        if not count:
            continue
        where = differs.nonzero().flatten()[:LISTED].cpu().tolist()
        for at in where:
            read, written = int(piece[at]), int(right[at])
            if not bad.count and not bad.words:
                bad.first = f"word {base + start + at}: wrote {written & M64:#018x}, read {read & M64:#018x}"
            bad.bits |= (read ^ written) & M64
            bad.words.append(start + at)
            if len(bad.words) >= LISTED:
                break
        bad.count += count
    return bad


def sees(words: Any, pattern: str, base: int, seed: int) -> bool:
    """Flip one bit of *words* and say whether that is noticed: the canary of every comparison. Flips it back."""
    at = len(words) // 3
    start = at - at % STEP
    words[at] ^= 1 << 5
    seen = compare(words[start : start + STEP], pattern, base + start, seed).count == 1
    words[at] ^= 1 << 5
    return seen


def memory(context: Context, budget_s: float, tamper: Tamper | None = None) -> Message:
    """Return the check of all memory that is free, less 1 GiB: each pattern is written everywhere, then read back.

    All of it is written before any of it is read: a cell that answers under two addresses shows.
    """
    import torch

    from gpuprov.proof.bench import device as on

    device, name = context.device, on.named(context.device, "hbm.patterns")
    chunk = CHUNK if on.on_gpu(device) else CPU_CHUNK
    free = on.free_bytes(device, CPU_TESTED + SPARED)
    data = on.identity(context.device)
    count = (free - SPARED) // chunk
    if count < 1:
        reason = f"only {free / on.GIB:.1f} GiB of memory are free, of which 1 GiB is left alone: nothing was tested"
        return check(name, "unknown", reason, device=device, action="restart job", data=data)
    with on.prepared(device):
        chunks = [torch.empty(chunk // 8, dtype=torch.int64, device=device) for _ in range(count)]
        ends_at = time.monotonic() + budget_s
        bad, passes, pattern = _passes(chunks, ends_at, context.seed, tamper)
        fill(chunks[-1], PATTERNS[-1], 0, context.seed)
        if bad is None and not sees(chunks[-1], PATTERNS[-1], 0, context.seed):
            return check(name, "fail", BLIND, device=device, data=data)
    if bad is None:
        tested = count * chunk
        reason = f"{tested / on.GIB:.2f} GiB kept {passes} patterns, written everywhere and read back"
        data.update(tested_bytes=tested, passes=passes)
        return check(name, "pass", reason, measured=0, expected=0, unit="bad words", device=device, data=data)
    at, words = bad
    data["evidence"] = words.lines(chunks[at].data_ptr())
    reason = f"memory does not keep what is written: pattern {pattern}, {at * chunk >> 20} MiB into it: "
    reason += words.text(chunks[at].data_ptr())
    fault = _failed(device)
    return check(name, fault["verdict"], reason, words.count, 0, "bad words", device, fault["action"], data)


def _passes(
    chunks: list[Any], ends_at: float, seed: int, tamper: Tamper | None
) -> tuple[tuple[int, Bad] | None, int, str]:
    """Go through all patterns at least once, again while time is left; stop at the first bad chunk."""
    passes = 0
    while True:
        for pattern in PATTERNS:
            salt = seed + passes
            for at, words in enumerate(chunks):
                fill(words, pattern, at * len(words), salt)
            if tamper is not None:
                tamper(chunks)
            passes += 1
            for at, words in enumerate(chunks):
                bad = compare(words, pattern, at * len(words), salt)
                if bad.count:
                    return (at, bad), passes, pattern
        if time.monotonic() >= ends_at:
            return None, passes, ""


def _copy(context: Context, report: Report) -> None:
    from gpuprov.proof.bench import device as on

    report.stage(f"copying within the memory of {context.device}")
    report.check(copy(context, on.uses(context, 0.5, 1.0, 20.0)))


def _memory(context: Context, report: Report) -> None:
    from gpuprov.proof.bench import device as on

    report.stage(f"writing patterns to all free memory of {context.device}")
    report.check(memory(context, on.uses(context, 5.0, 5.0, 900.0)))


PARTS = (
    Part("hbm.copy", "nightly", "device", _copy, "copies within the device's memory", deadline_s=60.0, loads=True),
    Part("hbm.patterns", "weekly", "device", _memory, "all free memory but 1 GiB", deadline_s=1500.0, loads=True),
)
