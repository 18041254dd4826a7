"""The command line of the proof: `python -m gpuprov.proof [--tier TIER] [TEST ...]`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time

from gpuprov.proof import registry
from gpuprov.proof.engine import Engine
from gpuprov.proof.output import Output
from gpuprov.proof.parts import TIER_BUDGET_S, TIERS
from gpuprov.proof.training.data import SEED
from gpuprov.proof.worker import Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType
    from typing import Any, NoReturn

#: As in gpuprov.errors, which does not travel to hosts.
EXIT_OK = 0
EXIT_ERROR = 1
EXIT_UNHEALTHY = 3
EXIT_INPUT = 5
EXIT_INTERRUPTED = 99

#: What runs when nothing is asked for.
DEFAULT = ("linear", "mlp", "versions")
#: When a run is killed, as a multiple of what its tier may take: a slow host is not a hanging one.
PATIENCE = {"quick": 6, "nightly": 5, "weekly": 4, "burnin": 1.25}
DEADLINE_S = 300.0

EPILOG = """\
exit codes: 0 healthy; 1 the proof could not run (no torch, no such device, --out not writable); 3 not healthy: a check
failed or could not be measured; 5 wrong options; 99 interrupted. docs/proof.md has the checks and their bounds."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_INPUT, f"error[usage]: {message}\nhint: --help lists what is allowed\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the proof; return the process's exit code."""
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a caller that ignores it would take our children's exit codes away
    output = Output(options.json)
    try:
        try:
            kept = _made(os.path.abspath(options.out)) if options.out else ""
            scratch = tempfile.mkdtemp(prefix="gpuprov-proof-")
        except OSError as error:
            hint = "--out and TMPDIR must name folders that this user can write to"
            output.message({"kind": "error", "code": "out-unwritable", "message": str(error), "hint": hint})
            return EXIT_ERROR
        try:
            return _prove(_job(options, kept or scratch, scratch), output, options.deadline)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's last flush has somewhere to go
        return EXIT_ERROR


def _prove(job: Job, output: Output, deadline_s: float | None) -> int:
    started = time.monotonic()
    budget_s = TIER_BUDGET_S.get(job.tier)
    if deadline_s is None:
        deadline_s = budget_s * PATIENCE[job.tier] if budget_s else DEADLINE_S
    Engine(job, output, deadline_s).run()
    if output.error:
        return EXIT_ERROR
    return EXIT_OK if output.done(time.monotonic() - started, job.tier, budget_s) else EXIT_UNHEALTHY


def _job(options: argparse.Namespace, folder: str, scratch: str) -> Job:
    drawn = options.seed == "random"
    expect = dict(options.expect)
    if options.expect_gpus is not None:
        expect["gpus"] = options.expect_gpus
    return Job(
        tests=tuple(options.tests) or (() if options.tier else DEFAULT),
        folder=folder,
        scratch=scratch,
        seed=int.from_bytes(os.urandom(3), "big") if drawn else options.seed,
        drawn=drawn,
        epochs=options.epochs,
        device=options.device,
        tier=options.tier,
        expect=expect,
        load_busy=options.load_busy,
        record=options.record,
    )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m gpuprov.proof",
        description="Look at the host and its GPUs, measure and train on them, and say what that proves.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "tests",
        nargs="*",
        metavar="TEST",
        type=_test,
        help="names of docs/proof.md; {} without a tier".format(", ".join(DEFAULT)),
    )
    add("--tier", choices=TIERS, default="", help="everything up to this depth")
    add("--expect", type=_object, default={}, metavar="JSON", help='what has to be found, such as {"gpus": 8}')
    add("--load-busy", action="store_true", help="load GPUs that processes use, too")
    add("--record", action="store_true", help="add all that NVML said to the output")
    add("--json", action="store_true", help="one JSON object per line on stdout")
    add("--expect-gpus", type=_count, metavar="N", help="fail when torch can use fewer GPUs")
    add("--device", default="auto", help="auto (every GPU, else the CPU), cpu, cuda (every GPU) or cuda:N")
    add("--seed", type=_seed, default=SEED, help='whole number or "random"; default: %(default)s')
    add("--epochs", type=_epochs, metavar="N", help="instead of 100 (linear) and 10 (mlp)")
    add("--out", metavar="DIR", help="keep linear_model.pth and mlp_model.pth there")
    add("--deadline", type=_seconds, metavar="S", help="kill what still runs after S seconds; 300, or by the tier")
    return parser


def _test(text: str) -> str:
    names = [part.name for part in registry.parts()]
    if not any(name == text or name.startswith(text + ".") for name in names):
        raise argparse.ArgumentTypeError("unknown test {}; allowed: {}".format(text, ", ".join(names)))
    return text


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text} is no JSON object, such as {{"gpus": 8}}')
    return value


def _count(text: str, least: int = 0) -> int:
    if not text.isdigit() or not least <= int(text) < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} on")
    return int(text)


def _epochs(text: str) -> int:
    return _count(text, 1)


def _seed(text: str) -> int | str:
    return text if text == "random" else _count(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value


def _made(folder: str) -> str:
    os.makedirs(folder, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} is not writable")
    return folder


def _terminated(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    """End as Ctrl-C does, so that the measuring processes are killed and the folder is removed."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
