"""What a fine-tune needs in memory, and how many layers fill what is free. Pure, without torch.

full    every weight is trained: float32 weight, its gradient and AdamW's two moments, 16 bytes
lora    weights are frozen in half precision; beside each matrix W (out x in) two small ones are trained,
        y = W x + B (A x) with A (RANK x in) and B (out x RANK); the head is trained as a whole
Both compute a layer again in the backward pass: of a layer only what goes into it is kept.
"""

from __future__ import annotations

from gpuprov.proof.check import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.check import Message
    from gpuprov.proof.training.sizes import Size

GIB = 1 << 30
#: Part of the free memory that is to be filled.
FILLED = 0.8
RANK = 16
#: Bytes of a trained number: weight, gradient and two moments in float32.
TRAINED = 16
#: Bytes per token and width that one layer takes while it is computed again and differentiated.
WORKING = 120
#: Bytes per token and word of the vocabulary: logits, their float32, its logarithm, gradients of both.
LOGITS = 16
#: Bytes per head and pair of tokens where attention keeps its scores: without bfloat16 torch's only deterministic way
#: is by plain products, with scores, mask, softmax and the gradients of these, in float32.
SCORES = 24
#: The measured peak may be this part of the plan, without a word.
LEAST, MOST = 0.75, 1.1
MOST_LAYERS = 400


class Plan:
    """Bytes by what they are for."""

    __slots__ = ("kept", "weights", "working")

    def __init__(self, weights: int, kept: int, working: int) -> None:
        self.weights, self.kept, self.working = weights, kept, working

    @property
    def total(self) -> int:
        """All bytes at the peak."""
        return self.weights + self.kept + self.working


def adapters(its: Size) -> int:
    """Return how many numbers the small matrices beside a model's four per layer have. Pure."""
    w = its.width
    return its.layers * RANK * ((w + 3 * w) + (w + w) + (w + 4 * w) + (4 * w + w))


def trained(kind: str, its: Size) -> int:
    """Return how many numbers are trained. Pure."""
    return its.parameters if kind == "full" else adapters(its) + its.vocabulary * its.width


def plan(kind: str, its: Size, half: bool) -> Plan:
    """Return what training *kind* ("full" or "lora") of *its* needs. half: the device computes in bfloat16. Pure."""
    weights = TRAINED * trained(kind, its)
    if kind == "lora":
        weights += (2 if half else 4) * (its.parameters - its.vocabulary * its.width)
    carried = 2 if half and kind == "lora" else 4
    kept = its.tokens * its.width * carried * its.layers
    working = its.tokens * (its.width * WORKING + its.vocabulary * LOGITS)
    if not half:
        working += its.batch * its.heads * its.context**2 * SCORES
    return Plan(weights, kept, working)


def fitting(kind: str, base: Size, free: int, half: bool) -> Size:
    """Return *base* with as many layers as FILLED of *free* bytes hold; with 0 when not even one fits. Pure."""
    one, two = (plan(kind, base.but(layers=n), half).total for n in (1, 2))
    room = int(FILLED * free) - one
    return base.but(layers=0 if room < 0 else min(MOST_LAYERS, 1 + room // (two - one)))


def compared(name: str, device: str, peak: int, planned: Plan, free: int, fixed: bool) -> Message:
    """Judge the measured peak beside the plan. fixed: only weights could be counted, which have to agree. Pure."""
    wanted = planned.weights if fixed else planned.total
    ratio = peak / wanted
    good = peak == wanted if fixed else LEAST <= ratio <= MOST
    what = "weights, gradients and moments take" if fixed else "at the peak the training held"
    full = "" if fixed else f", {100 * peak / free:.0f} % of what was free"
    bad = "warn" if not fixed else "fail"
    return check(
        name + ".memory",
        "pass" if good else bad,
        f"{what} {_text(peak)}{full}; planned were {_text(wanted)}",
        measured=peak,
        expected=f"{wanted}" if fixed else f"{int(LEAST * wanted)} to {int(MOST * wanted)}",
        unit="bytes",
        device=device,
        action="none" if good else "monitor",
        data={"planned": {"weights": planned.weights, "kept": planned.kept, "working": planned.working}, "free": free},
    )


def exhausted(name: str, device: str, planned: int, free: int, held: int, others: int, others_before: int) -> Message:
    """Judge an allocation that failed though *planned* bytes of *free* ones were to be used. Pure.

    held: what this process had of it; others: what other processes hold now, and held before.
    """
    data = {"planned": planned, "free": free, "held": held, "others": others, "others_before": others_before}
    if others > others_before + GIB // 4:
        reason = f"memory ran out: other processes took {_text(others - others_before)} of it meanwhile"
        return check(name, "unknown", reason, held, planned, "bytes", device, "restart job", data)
    if held >= LEAST * planned:
        reason = f"memory ran out at {_text(held)}, near the {_text(planned)} that were planned: the plan is too tight"
        return check(name, "unknown", reason, held, planned, "bytes", device, "monitor", data)
    reason = f"memory ran out at {_text(held)}, though {_text(free)} were said to be free and nobody else took any"
    return check(name, "fail", reason, held, planned, "bytes", device, "reset GPU", data)


def _text(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.2f} MiB"
