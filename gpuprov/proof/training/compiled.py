"""P5 of the ladder: torch.compile. The compiled GPT computes what the eager one does, and it is compiled at all.

The work is done by a process of its own (compile_child.py) with a private cache: what a user's cache or environment
has cannot matter, nothing is left, and the compiler's processes end with it. This file judges what it says.
"""

from __future__ import annotations

from gpuprov.proof.check import check, measurement, thinned, within
from gpuprov.proof.parts import Part
from gpuprov.proof.training import ddp, private, stream
from gpuprov.proof.training.gpt import LARGE as P1
from gpuprov.proof.training.gpt import TINY as P1_TINY
from gpuprov.proof.training.judge import canary, largest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Sequence

    from gpuprov.proof.check import Message
    from gpuprov.proof.parts import Context
    from gpuprov.proof.training.sizes import Size
    from gpuprov.proof.worker import Report

#: The layers of P1, fewer of them: a compiler has nothing new to do for the next one.
LARGE = P1.but(layers=4, bound=0.5)
TINY = P1_TINY.but(layers=1, bound=0.5)
NEEDED = 16 << 30
#: After what the compiling process is killed, with all that it started.
LIMIT_S = 240.0
#: Difference from float64 of a number, of the largest of its tensor: what is always allowed, and what never is.
FLOORS = {"float32": 1e-5, "bfloat16": 2.0**-6}
CAPS = {"float32": 1e-4, "bfloat16": 2.0**-4}
#: Between, the compiled model may differ from float64 by this many times what the eager one does.
FACTOR = 2.0
#: Relative difference of a step's loss in bfloat16. For float32 see ddp.bound.
HALF_LOSS_BOUND = 2.0**-6
#: What the whole model is compiled to: one graph, without a break, and never again.
GRAPHS = 1
#: What a build of torch for this device needs to compile, and where it comes from.
WAYS = {
    "c++": "install a C++ compiler (Debian, Ubuntu: g++; Red Hat, SUSE: gcc-c++), or name one in CXX",
    "c": "install a C compiler (gcc), or name one in CC: Triton compiles its launcher with it",
    "headers": "install the interpreter's headers (Debian, Ubuntu: python3-dev; Red Hat: python3-devel)",
    "triton": "install triton, of the version that this torch requires, into the environment",
    "capability": "Triton compiles for 7.0 and newer",
    "torch": "take a Python and a torch that support torch.compile together",
}


def prove(context: Context, report: Report) -> None:
    """Report the checks of P5 on the context's device."""
    from gpuprov.proof.bench import device as on

    device = context.device
    name = on.named(device, "compile")
    reason = on.room(device, NEEDED) if on.on_gpu(device) else ""
    if reason:
        report.check(check(name, "unknown", reason, device=device, action="restart job", data=on.identity(device)))
        return
    report.stage(f"compile on {device}: starting a process of its own")
    asked = {"device": device, "seed": context.seed}
    end = private.run("gpuprov.proof.training.compile_child", asked, context.scratch, LIMIT_S, report.stage)
    for found in judged(name, device, end):
        report.check(dict(found, data=dict(on.identity(device), **found["data"])))


def size(device: str) -> Size:
    """Return what is compiled on *device*. Pure."""
    return LARGE if device.startswith("cuda") else TINY


def judged(name: str, device: str, end: private.End) -> list[Message]:
    """Return the checks of what the compiling process said, or of how it ended. Pure."""
    found = end.found
    if end.late:
        reason = f"torch.compile did not end within {LIMIT_S:g} s ({end.stage}); all its processes were killed"
        verdict = "unknown" if device == "cpu" else "fail"  # compilers and a busy processor take as long as they take
        return [check(name, verdict, reason, measured=end.stage, expected="ends by itself", device=device)]
    if found.get("missing"):
        verdict = "skip" if device == "cpu" or found["missing"] == "capability" else "unknown"
        reason = f"not compiled: {found['reason']}; {WAYS[found['missing']]}"
        return [check(name, verdict, reason, device=device)]
    if found.get("error"):
        verdict = "unknown" if found.get("memory") else "fail"
        action = "restart job" if found.get("memory") else "none"
        return [check(name, verdict, f"torch.compile stopped: {found['error']}", device=device, action=action)]
    if not found.get("complete"):
        verdict = "unknown" if end.signal in ("", "SIGKILL") else "fail"
        return [check(name, verdict, f"the compiling process {end.how()}", end.stage, "ends by itself", "", device)]
    return _compared(name, device, size(device), found)


def _compared(name: str, device: str, its: Size, found: Message) -> list[Message]:
    every = [
        _graphs(name, device, found),
        agrees(name, device, "output", found),
        agrees(name, device, "gradients", found),
        trace(name, device, found["kind"], found["losses"], found["eager_losses"], its.tokens),
        stream.learns(name, device, found["losses"], its.loss_bound),
        stream.above_floor(name, device, found["losses"], found["truths"], its.tokens),
    ]
    spoiled = [agrees(name, device, what, dict(found, compiled=found["spoiled"])) for what in ("output", "gradients")]
    caught = all(one["verdict"] == "fail" for one in spoiled)
    every.append(canary(name + ".canary", device, caught, "a compiled graph whose output is a quarter too large"))
    every.append(_time(name, device, found))
    if found["speedups"]:
        right = all(one["verdict"] == "pass" for one in every)
        every.append(_speedup(name, device, its, found, right))
    return every


def bound(kind: str, eager: float) -> float:
    """Return how far from float64 the compiled model may be, when the eager one is by *eager*. Pure."""
    return min(CAPS[kind], max(FLOORS[kind], FACTOR * eager))


def agrees(name: str, device: str, what: str, found: Message) -> Message:
    """Judge the "output" or the "gradients" of the first batch beside float64. Pure; NaN fails."""
    error, where = found["compiled"][what]
    eager, kind = found["eager"][what][0], found["kind"]
    return within(
        f"{name}.{what}",
        error,
        bound(kind, eager),
        f"{what} of the compiled model in {kind} are as near to float64 as those of the eager one ({eager:.2g})",
        f"{what} of the compiled model differ from float64, most in {where}; those of the eager model by {eager:.2g}",
        unit="of the largest",
        device=device,
    )


def trace(name: str, device: str, kind: str, mine: Sequence[float], eager: Sequence[float], tokens: int) -> Message:
    """Judge the loss of each step of the compiled training beside the eager one's. Pure; NaN fails."""
    bounds = [ddp.bound(step, tokens) if kind == "float32" else HALF_LOSS_BOUND for step in range(1, len(eager) + 1)]
    parts = [abs(a - b) / abs(b) / limit for a, b, limit in zip(mine, eager, bounds)]
    first = next((step for step, part in enumerate(parts, 1) if not part <= 1.0), 0)
    return within(
        name + ".trace",
        largest(parts) if len(mine) == len(eager) else float("nan"),
        1.0,
        f"the loss of each of {len(eager)} steps is that of the eager training",
        f"from step {first} of {len(eager)} on the loss is not that of the eager training with the same data",
        unit="of the bound",
        device=device,
        data={"losses": thinned(list(mine), 40)},
    )


def _graphs(name: str, device: str, found: Message) -> Message:
    """Judge that the model was compiled: as one graph, by the backend that was asked for, and once."""
    graphs, again, kernels = found["graphs"], found["again"], found["kernels"]
    breaks = "; ".join(f"{' '.join(str(why).split())[:120]} ({n})" for why, n in sorted(found["breaks"].items()))
    good = graphs == GRAPHS and not again and not found["breaks"] and kernels > 0
    why = f"compiled as {graphs} graphs with {kernels} files of generated code, {again} more while it trained"
    return check(
        name + ".graphs",
        "pass" if good else "fail",
        f"the model was compiled as one graph ({kernels} files of generated code), and not again while it trained"
        if good
        else f"the model was {why}, breaks: {breaks or 'none'}; expected are one graph, some code, and nothing more",
        measured=graphs + again,
        expected=GRAPHS,
        unit="graphs",
        device=device,
        data={"breaks": sum(found["breaks"].values()), "recompiles": again, "files": kernels},
    )


def _time(name: str, device: str, found: Message) -> Message:
    """Tell how long compiling took: the host's CPU and whatever else ran there decide that, so nobody judges it."""
    seconds = found["compile_s"]
    reason = f"compiling forward and backward pass took {seconds:.1f} s with an empty cache, in one process"
    return check(name + ".time", "pass", reason, measured=seconds, unit="s", device=device)


def _speedup(name: str, device: str, its: Size, found: Message, right: bool) -> Message:
    data = {"work": its.text(), "eager_s": thinned(found["eager_s"], 8), "compiled_s": thinned(found["compiled_s"], 8)}
    said = f"{its.text()}: eager over compiled, per step"
    reason = said if right else f"{said}; but what was computed is wrong, see the other checks of {name}"
    ratios: list[Any] = found["speedups"]
    return measurement(name + ".speedup", ratios, "x", "higher", reason, device=device, data=data)


_READS = "torch.compile of the GPT: its compilers, and its results beside the eager ones"
PARTS = (Part("compile", "weekly", "device", prove, _READS, deadline_s=LIMIT_S + 60.0, loads=True),)
