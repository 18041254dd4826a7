"""What the compiling process does: python -m gpuprov.proof.training.compile_child JSON. Imports torch."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import sys
import sysconfig
import time

from gpuprov.proof.training import private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from gpuprov.proof.check import Message
    from gpuprov.proof.training.sizes import Size

#: Triton compiles for compute capability 7.0 and newer.
LEAST_CAPABILITY = (7, 0)
#: By how much the output of the canary's graph is too large: more than compiled.CAPS.
WRONG = 0.25


def main(argv: Sequence[str]) -> int:
    """Do what the argument asks for; print what was found."""
    asked = json.loads(argv[0])
    private.die_with(asked["parent"])
    device = asked["device"]
    missing = lacking(device)
    if missing:
        say(missing=missing[0], reason=missing[1])
        return 0
    say(stage=f"compile on {device}: importing torch")
    import torch

    from gpuprov.proof.training.compiled import size

    missing = unsupported(device)
    if missing:
        say(missing=missing[0], reason=missing[1])
        return 0
    try:
        say(complete=True, **compare(device, size(device), asked["seed"]))
    except torch.cuda.OutOfMemoryError as error:
        say(error=_text(error), memory=True)
    except Exception as error:  # whatever a compiler raises is what is to be told
        import traceback

        traceback.print_exc()
        say(error=_text(error))
    return 0


def say(**message: Any) -> None:
    """Send a message: one JSON line."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def lacking(device: str) -> tuple[str, str] | None:
    """Return what compiling for *device* lacks here (a key of compiled.WAYS), and the sentence; None for nothing."""
    if device == "cpu":
        if not _there(os.environ.get("CXX") or "g++"):
            return "c++", f"there is no C++ compiler ({os.environ.get('CXX') or 'g++'})"
    else:
        if importlib.util.find_spec("triton") is None:
            return "triton", f"triton is not installed for {sys.executable}"
        named = os.environ.get("CC")
        if not any(_there(cc) for cc in ([named] if named else ["gcc", "clang", "cc"])):
            return "c", f"there is no C compiler ({named or 'gcc, clang'})"
    folder = sysconfig.get_paths()["include"]
    if not os.path.exists(os.path.join(folder, "Python.h")):
        return "headers", f"there is no Python.h in {folder}"
    return None


def unsupported(device: str) -> tuple[str, str] | None:
    """Return as `lacking` does what neither a package nor a compiler would help with."""
    import torch
    from torch import _dynamo

    if not _dynamo.is_dynamo_supported():
        version = ".".join(map(str, sys.version_info[:2]))
        return "torch", f"torch {torch.__version__} does not compile for Python {version}"
    if device != "cpu" and torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return "capability", "the GPU has compute capability {}.{}".format(*torch.cuda.get_device_capability(device))
    return None


def _there(command: str) -> bool:
    return shutil.which(shlex.split(command)[0]) is not None


def compare(device: str, its: Size, seed: int, backend: Any = "inductor") -> Message:
    """Compile the GPT, compute a batch and train with it and without. Raises whatever torch does.

    backend: "inductor", or another one (tests).
    """
    import torch
    from torch._dynamo.utils import counters

    from gpuprov.proof.training import gpt_train
    from gpuprov.proof.training.gpt_model import Gpt

    with gpt_train.modes(device):
        batches = gpt_train.Batches(its, device, seed)
        first = batches.host[0].to(device)
        say(stage=f"compile on {device}: the same in float64")
        right = exact(Gpt(its, device, seed).double(), first)
        model = Gpt(its, device, seed)
        eager = errors(computed(model, model, first, device), right)
        say(stage=f"compile on {device}: compiling {its.text()}")
        counters.clear()
        started = time.perf_counter()
        fast = torch.compile(model, backend=backend)
        mine = computed(model, fast, first, device)
        compile_s = time.perf_counter() - started
        graphs, breaks = counted(), dict(counters["graph_break"])
        say(stage=f"compile on {device}: training compiled")
        ours = gpt_train.train(its, device, seed, model=fast)
        again, breaks = counted() - graphs, {**breaks, **counters["graph_break"]}
        say(stage=f"compile on {device}: training eager")
        theirs = gpt_train.train(its, device, seed)
        return {
            "kind": gpt_train.kind(device),
            "eager": eager,
            "compiled": errors(mine, right),
            "spoiled": errors(spoiled(Gpt(its, device, seed), first, device), right),
            "graphs": graphs,
            "again": again,
            "breaks": {str(why): n for why, n in breaks.items()},
            "kernels": generated(),
            "compile_s": compile_s,
            "losses": ours.losses,
            "eager_losses": theirs.losses,
            "truths": ours.truths,
            "eager_s": theirs.seconds,
            "compiled_s": ours.seconds,
            "speedups": [a / b for a, b in zip(theirs.seconds, ours.seconds)],
        }


def spoiled(model: Any, tokens: Any, device: str) -> dict[str, Any]:
    """Return what *model* computes when it is compiled wrongly: the canary."""
    import torch

    say(stage=f"compile on {device}: canary")
    return computed(model, torch.compile(model, backend=wrongly), tokens, device)


def counted() -> int:
    """Return how many graphs were compiled until now."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def generated() -> int:
    """Return how many files of code the private cache has."""
    names = [name for _, _, files in os.walk(os.environ["TORCHINDUCTOR_CACHE_DIR"]) for name in files]
    return sum(name.endswith(".py") for name in names)


def computed(model: Any, called: Callable[..., Any], tokens: Any, device: str) -> dict[str, Any]:
    """Return the output and all gradients of one batch, by name, in float64; leaves the model as it was."""
    from gpuprov.proof.training import gpt_train
    from gpuprov.proof.training.gpt_model import loss_of

    model.zero_grad(set_to_none=True)
    with gpt_train.autocast(device):
        output = called(tokens[:, :-1])
        loss = loss_of(output, tokens)
    loss.backward()
    return _taken(model, output.detach())


def exact(model: Any, tokens: Any) -> dict[str, Any]:
    """Return the same of a model in float64, one sequence after the other: that needs less memory."""
    import torch
    from torch.nn.functional import cross_entropy

    outputs = []
    for one in tokens.split(1):
        output = model(one[:, :-1])
        (cross_entropy(output.flatten(0, 1), one[:, 1:].flatten()) / len(tokens)).backward()
        outputs.append(output.detach())
    return _taken(model, torch.cat(outputs))


def _taken(model: Any, output: Any) -> dict[str, Any]:
    found = {name: parameter.grad.double() for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return {**found, "": output.double()}


def errors(mine: dict[str, Any], right: dict[str, Any]) -> dict[str, tuple[float, str]]:
    """Return the largest difference of "output" and of "gradients", of the largest of its tensor, and in which."""
    each = {name: float((mine[name] - it).abs().max() / it.abs().max()) for name, it in right.items()}
    output = each.pop("")
    bad = {name: error for name, error in each.items() if error != error}
    worst = next(iter(bad), "") or max(each, key=lambda name: each[name])
    return {"output": (output, "the logits"), "gradients": (each[worst], worst)}


def wrongly(graph: Any, inputs: Any) -> Any:  # noqa: ARG001 - torch's interface of a backend
    """Compile nothing, and compute too large an output: a backend for the canary."""

    def run(*values: Any) -> Any:
        first, *others = graph(*values)
        return (first * (1.0 + WRONG), *others)

    return run


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
