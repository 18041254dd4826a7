"""Views: what a run shows while it goes on: live on a terminal, lines elsewhere, nothing for --json.

Views are called by one thread. What hosts send is cleaned here; host names are the inventory's.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from gpuprov.report.ink import Ink, plural, printable, wants_color, width_of
from gpuprov.report.lines import FEW_HOSTS, Line, Teller
from gpuprov.report.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprov.results import RunReport

#: Lines about the same thing on several hosts wait this long for each other.
GROUP_S = 1.0
#: How often a run that is not on a terminal says how far it is.
PROGRESS_S = 10.0

#: The names of hosts where all is well are cut after so many characters; troubles name every host.
NAMES_CHARS = 40


class View(Protocol):
    """What a run tells about itself while it goes on."""

    def host_state(self, host: str, state: str, detail: str = "") -> None:
        """Host is now connecting, preparing, ready, sending, running, rebooting, reconnecting or done.

        detail of done is the outcome, with ": " and the cause when there is one.
        """

    def event(self, host: str, event: dict[str, Any], node: dict[str, Any] | None) -> None:
        """Something happened on host; node is the plan's task that it belongs to."""

    def message(self, text: str, level: str = "info") -> None:
        """Say one sentence about the run as a whole; level is info, warning or error."""

    def tick(self, now: float) -> None:
        """A moment passed; *now* is time.monotonic()."""

    def finish(self, report: RunReport, folder: str | None) -> None:
        """The run is over: show the recap. folder is where its files are."""


def make_view(*, json: bool = False, verbosity: int = 0, stream: TextIO | None = None, hosts: int = 1) -> View:
    """Return the view for *stream* (default: stdout) and a run over so many *hosts*."""
    stream = stream or sys.stdout
    if json:
        return SilentView()
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and verbosity < 2:
        from gpuprov.report.live import LiveView

        return LiveView(stream, verbosity, hosts)
    return PlainView(stream, verbosity, hosts)


class SilentView:
    """Says nothing on stdout, which belongs to the JSON document; warnings go to stderr."""

    def host_state(self, host: str, state: str, detail: str = "") -> None:
        """Say nothing."""

    def event(self, host: str, event: dict[str, Any], node: dict[str, Any] | None) -> None:
        """Say nothing."""

    def message(self, text: str, level: str = "info") -> None:
        """Say warnings and errors on stderr."""
        if level != "info":
            print(f"{level}: {text}", file=sys.stderr)  # noqa: T201 - this is a view

    def tick(self, now: float) -> None:
        """Say nothing."""

    def finish(self, report: RunReport, folder: str | None) -> None:
        """Say nothing: the document says it all."""


class PlainView:
    """Lines, for logs and pipes: `gpu01: changed  environment : CUDA paths (0.1 s)`.

    With many hosts, the same line of several hosts within a second is one line:
    `gpu[01-16]: changed  environment : CUDA paths`.
    """

    def __init__(self, stream: TextIO, verbosity: int = 0, hosts: int = 1) -> None:
        self._stream = stream
        self._ink = Ink(wants_color(stream))
        self._verbosity = verbosity
        self._teller = Teller(verbosity, hosts)
        self._progress = Progress(hosts)
        self._waiting: dict[tuple[str, str, tuple[str, ...]], list[Line]] = {}
        self._group = hosts > FEW_HOSTS and verbosity < 2
        self._due = self._progress_due = 0.0

    def host_state(self, host: str, state: str, detail: str = "") -> None:
        """Say what matters: hosts that cannot go on, and with -v every step."""
        self._progress.state(host, state, detail, time.monotonic())
        if state == "done":
            outcome, _, cause = detail.partition(": ")
            if outcome in ("unreachable", "refused", "lost", "interrupted") or self._verbosity:
                self._say(Line(host, outcome or "done", cause or ("done" if outcome in ("ok", "changed", "") else "")))
        elif self._verbosity or state in ("rebooting", "reconnecting"):
            self._say(Line(host, "dim", f"{state} {detail}".rstrip()))

    def event(self, host: str, event: Mapping[str, Any], node: Mapping[str, Any] | None) -> None:
        """Say what the verbosity wants said."""
        self._progress.event(host, event, node, time.monotonic())
        for line in self._teller.event(host, event, node):
            self._say(line)

    def message(self, text: str, level: str = "info") -> None:
        """Say it at once."""
        self._flush()
        self._write(self._ink(level, f"{level}: {text}") if level != "info" else text)

    def tick(self, now: float) -> None:
        """Write what waited long enough, and from time to time how far the run is."""
        if now >= self._due and self._waiting:
            self._flush()
        if not self._progress_due:
            self._progress_due = now + PROGRESS_S
            self._progress.began = self._progress.began or now
        elif now >= self._progress_due:
            self._progress_due = now + PROGRESS_S
            self._flush()
            self._write(self._ink("dim", f"... {self._progress.sentence(now)}"))

    def finish(self, report: RunReport, folder: str | None) -> None:
        """Write the recap."""
        from gpuprov.report.terminal import recap

        self._flush()
        text = recap(report, folder, ink=self._ink, width=width_of(self._stream), names=self._verbosity > 0)
        self._write("\n" + text.rstrip("\n"))

    def _say(self, line: Line) -> None:
        if not self._group:
            self._write(self._text(line.host, line, line.took))
            return
        if not self._waiting:
            self._due = time.monotonic() + GROUP_S
        self._waiting.setdefault((line.word, line.text, line.beneath), []).append(line)

    def _flush(self) -> None:
        if not self._waiting:
            return
        from gpuprov.load.ranges import fold

        lines, self._waiting = self._waiting, {}
        for same in lines.values():
            names = fold([line.host for line in same])
            if same[0].word in ("ok", "changed", "skipped", "dim") and len(names) > NAMES_CHARS:
                names = _cut(names)
            self._write(self._text(names, same[0], _took(same)))

    def _text(self, hosts: str, line: Line, took: str) -> str:
        return render(self._ink, hosts, line, took)

    def _write(self, text: str) -> None:
        self._stream.write(printable(text, self._stream) + "\n")
        self._stream.flush()


def render(ink: Ink, hosts: str, line: Line, took: str) -> str:
    """Return *line* about *hosts* as text, with what is beneath it."""
    tail = ink("dim", f" ({took})") if took else ""
    if line.word == "dim":
        text = f"{hosts}: {ink('dim', line.text)}"
    else:
        text = f"{hosts}: {ink(line.word, f'{line.word:<8}')} {line.text}{tail}".rstrip()
    return "\n".join([text, *(f"    {ink(each[:1], each)}" for each in line.beneath)])


def _cut(names: str) -> str:
    kept = names[:NAMES_CHARS].rpartition(",")[0]
    return f"{kept},...{']' if kept.count('[') > kept.count(']') else ''}"


def _took(lines: list[Line]) -> str:
    if len(lines) == 1:
        return lines[0].took
    return plural(len(lines), "host")
