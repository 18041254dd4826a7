"""An answer of the resolver, with all its reasons, as text. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuprov.stack.build import in_words
from gpuprov.stack.model import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuprov.stack.model import Refusal


def explain(answer: Stack | Refusal) -> str:
    """Return the whole reasoning, in lines."""
    return "\n".join(_stack(answer) if isinstance(answer, Stack) else _refusal(answer))


def _stack(stack: Stack) -> Iterator[str]:
    yield "  host       " + "; ".join(f"{key} {_text(value)}" for key, value in stack.host.items())
    for reason in stack.reasons:
        yield f"  {reason.part:<14} {reason.choice}: {reason.because} [{reason.rule}]"
    if stack.torch is not None:
        beside = [f"torchvision {stack.torch.torchvision}"] if stack.torch.torchvision else []
        beside += [f"torchaudio {stack.torch.torchaudio}"] if stack.torch.torchaudio else []
        yield f"  {'with torch':<14} {', '.join(beside)}"
    if stack.repository is not None:
        where = f" at {stack.repository.url}" if stack.repository.url else ""
        yield f"  {'packages from':<14} {stack.repository.name}{where}"
    for name in ("driver", "fabricmanager", "cuda", "cudnn", "nccl", "dcgm", "container_toolkit"):
        part = getattr(stack, name)
        if part is not None and part.packages:
            yield f"  {'':<14} {', '.join(f'{p.name} {p.version}'.strip() for p in part.packages)}"
    for warning in stack.warnings:
        yield f"  warning        {warning}"
    yield f"  tables         {stack.tables}"


def _refusal(refusal: Refusal) -> Iterator[str]:
    yield f"  refused        {refusal.message}"
    yield f"  rule           {refusal.rule} (found {refusal.found}, needed {refusal.needed})"
    yield f"  source         {refusal.source}; tables of {refusal.tables}"
    for other in refusal.alternatives:
        yield f"  instead        {other.say}"
    if not refusal.alternatives:
        yield "  instead        nothing that the resolver tried fits this host"


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


__all__ = ["explain", "in_words"]
