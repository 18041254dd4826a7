"""The command line of a host's part: `python -m gpuprov.proof.fabric < plan.json`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time

from gpuprov.proof.fabric import work
from gpuprov.proof.fabric.plan import Plan, PlanError
from gpuprov.proof.output import Output
from gpuprov.proof.supervisor import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import NoReturn

    from gpuprov.proof.check import Message

#: As in gpuprov.errors, which does not travel to hosts.
EXIT_OK = 0
EXIT_ERROR = 1
EXIT_UNHEALTHY = 3
EXIT_INPUT = 5
EXIT_INTERRUPTED = 99
_MEMBER, _HUB = 0, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Take part in a run; return the process's exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m gpuprov.proof.fabric",
        description="Take part in a proof over several hosts. The plan comes on stdin, as JSON: docs/fabric.md.",
        epilog="exit codes: 0 healthy; 1 could not run; 3 a check failed or could not be measured; 5 wrong plan.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line on stdout")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a caller that ignores it would take our children's exit codes away
    try:
        plan = Plan(json.loads(sys.stdin.read()))
    except (ValueError, PlanError) as error:
        print(f"error[plan]: {error}\nhint: docs/fabric.md has its fields", file=sys.stderr)  # noqa: T201
        return EXIT_INPUT
    try:
        return _run(plan, Output(options.json))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_ERROR


def _run(plan: Plan, output: Output) -> int:
    started = time.monotonic()
    work.prepare()

    def process(index: int, send: Callable[[Message], None]) -> None:
        (work.hub if index == _HUB else work.member)(plan, send)

    supervisor = Supervisor(process, output.message, plan.deadline_s)
    try:
        if plan.host == plan.hub:
            supervisor.start(_HUB)
        supervisor.start(_MEMBER)
        supervisor.wait()
    finally:
        supervisor.kill()
    if output.error:
        return EXIT_ERROR
    return EXIT_OK if output.done(time.monotonic() - started) else EXIT_UNHEALTHY


def _terminated(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    """End as Ctrl-C does, so that all processes are killed."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
