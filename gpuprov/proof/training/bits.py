"""What is compared bit by bit: the first difference of two trainings, and who of several is the odd one. Pure."""

from __future__ import annotations

from gpuprov.proof.check import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuprov.proof.check import Message
    from gpuprov.proof.training.gpt_train import Trace

#: What the numbers of a step are, in the order in which they come to be.
KINDS = ("loss", "gradients", "weights")


def first_difference(one: Sequence[tuple[int, ...]], other: Sequence[tuple[int, ...]]) -> tuple[int, str]:
    """Return the first step (from 1) that differs and what of it does, (0, "") when none does. Pure."""
    for number, (a, b) in enumerate(zip(one, other), 1):
        for kind, x, y in zip(KINDS, a, b):
            if x != y:
                return number, kind
    if len(one) != len(other):
        return min(len(one), len(other)) + 1, "end"
    return (0, "") if one else (1, "absence")


def same(name: str, device: str, first: Trace, second: Trace, data: Message) -> Message:
    """Compare two trainings bit by bit; *data* is added to what other devices' bits are compared with. Pure."""
    step, what = first_difference(first.steps, second.steps)
    good = not step and first.state == second.state
    where = (
        f"from step {step} on, first in its {what}" if step else "in the optimiser's moments, though no step differs"
    )
    count, data = len(first.steps), dict(data, bits=first.digest())
    if not good:
        data["evidence"] = [f"step {step}: {first.steps[step - 1]} and {second.steps[step - 1]}"] if step else []
        data["evidence"].append(f"digests {first.digest()[:16]} and {second.digest()[:16]}")
    return check(
        name,
        "pass" if good else "fail",
        f"two trainings gave the same bits in loss, gradients and weights of each of {count} steps, and at the end"
        if good
        else f"silent data corruption: two trainings of the same data on the same device differ {where}",
        measured=first.digest()[:16],
        expected=second.digest()[:16],
        unit="SHA-256",
        device=device,
        action="none" if good or not device.startswith("cuda") else "isolate",
        data=data,
    )


def odd_ones(values: Sequence[object]) -> list[int]:
    """Return the places of values that are not the most frequent one; all of them when no value is. Pure.

    Of two that differ nobody can tell which one is wrong.
    """
    counts = [list(values).count(one) for one in values]
    most = max(counts)
    winners = {repr(one) for one, count in zip(values, counts) if count == most}
    return [at for at, count in enumerate(counts) if count < most or len(winners) > 1]
