"""The view on a terminal: what every host is doing, drawn in place; what matters scrolls by above.

The only importer of rich, and not before there is something to draw: a run that is over within
a moment never pays for it.
"""

from __future__ import annotations

import atexit
import time
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from gpuprov.load.ranges import natural_key
from gpuprov.report.ink import plural, printable, seconds, wants_color, width_of
from gpuprov.report.lines import FEW_HOSTS, Line, Teller
from gpuprov.report.progress import ENDINGS, ORDER, HostProgress
from gpuprov.report.view import PlainView

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.text import Text

    from gpuprov.results import RunReport

#: Nothing is drawn before a run is this old, nor more often than the second number says.
FIRST_S, EVERY_S = 0.4, 0.25
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
#: Up to so many hosts have a row each, if the terminal is high enough; of more, the slowest have.
ROWS = 24
SLOWEST = 6
STYLES = {
    "ok": "green",
    "changed": "yellow",
    "failed": "red",
    "lost": "bold red",
    "unreachable": "bold red",
    "refused": "magenta",
    "interrupted": "magenta",
    "running": "blue",
    "rebooting": "magenta",
    "reconnecting": "bold yellow",
}


class LiveView(PlainView):
    """Lines that matter, and below them the present, redrawn four times a second."""

    def __init__(self, stream: TextIO, verbosity: int = 0, hosts: int = 1) -> None:
        super().__init__(stream, verbosity, hosts)
        if hosts > 1:  # the rows show the losses as they come
            self._teller = Teller(verbosity, hosts, epochs_between=10**9)
        self._live: Live | None = None
        self._began = time.monotonic()
        self._drawn = 0.0
        self._rows = hosts <= FEW_HOSTS

    def tick(self, now: float) -> None:
        """Draw, when it is time to."""
        if now >= self._due and self._waiting:
            self._flush()
        if now - self._began < FIRST_S or now - self._drawn < EVERY_S:
            return
        self._drawn = now
        if self._live is None:
            self._live = self._start()
        height = self._live.console.size.height
        self._rows = self._progress.expected <= min(ROWS, max(4, height - 8))
        self._live.update(self._picture(now), refresh=True)

    def finish(self, report: RunReport, folder: str | None) -> None:
        """Take the picture away and write the recap."""
        self._flush()
        if self._live is not None:
            self._live.stop()
            atexit.unregister(self._live.stop)
            self._live = None
        super().finish(report, folder)

    def _say(self, line: Line) -> None:
        """Say it above the picture; of many hosts, changes are only counted there."""
        if self._group and line.word == "changed" and not line.beneath and not self._verbosity:
            return
        super()._say(line)

    def _start(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, no_color=not wants_color(self._stream), highlight=False)
        live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=True)
        live.start()
        atexit.register(live.stop)  # a run that ends in an error must not leave the terminal without its cursor
        return live

    def _write(self, text: str) -> None:
        if self._live is None:
            super()._write(text)
            return
        from rich.text import Text

        shown = Text.from_ansi(printable(text, self._stream))
        self._live.console.print(shown, soft_wrap=True)

    def _picture(self, now: float) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [Text(""), self._bar(now)]
        if self._rows:
            hosts = sorted(self._progress.hosts.values(), key=lambda h: natural_key(h.host))
            parts.append(_table([self._row(h, now) for h in hosts]))
        else:
            parts += self._crowd(now)
        return Group(*parts)

    def _bar(self, now: float) -> Text:
        """Return one line: the hosts as a bar, how many are in which state, and the time."""
        from rich.text import Text

        counts, expected = self._progress.counts(), max(1, self._progress.expected)
        order = [*reversed(ENDINGS), *reversed(ORDER[:-1])]
        width = min(40, max(16, width_of(self._stream) - 80))
        bar, used, seen = Text(no_wrap=True, overflow="ellipsis"), 0, 0
        for word in order:
            seen += counts[word]
            until = round(width * seen / expected)
            bar.append("━" * (until - used), STYLES.get(word, "bright_black"))
            used = until
        bar.append("━" * (width - used), "bright_black")
        bar.append(f"  {self._progress.finished()}/{self._progress.expected}", "bold")
        for word in order:
            if counts[word]:
                bar.append(f"  {counts[word]} {word}", STYLES.get(word, "dim"))
        bar.append(f"  {seconds(now - self._began)}", "dim")
        return bar

    def _row(self, host: HostProgress, now: float) -> list[Text]:
        """Return the cells of one host: name, what it is at and since when, its last output."""
        from rich.text import Text

        word = host.outcome or host.state
        busy = host.state != "done"
        style = STYLES.get(word, "dim")
        mark = SPINNER[int(now * 8) % len(SPINNER)] if busy else "✓" if word in ("ok", "changed") else "✗"
        tasks = f"{host.done:>3} done" + (f", {host.changed} changed" if host.changed else "")
        what = host.task or word
        since = seconds(now - host.at_it_since()) if busy else ""
        return [
            Text(f"{mark} {host.host}", style, no_wrap=True, overflow="ellipsis"),
            Text(tasks if host.done else "", "red" if host.failed else "dim", no_wrap=True),
            Text(what, "" if host.task else style, no_wrap=True, overflow="ellipsis"),
            Text(since, "dim", no_wrap=True, justify="right"),
            Text(host.output, "dim", no_wrap=True, overflow="ellipsis"),
        ]

    def _crowd(self, now: float) -> list[RenderableType]:
        """Return what many hosts are at: the tasks with the most hosts, and the slowest hosts."""
        from rich.text import Text

        at = Counter(h.task for h in self._progress.hosts.values() if h.task)
        parts: list[RenderableType] = []
        for task, count in at.most_common(4):
            line = Text(no_wrap=True, overflow="ellipsis")
            parts.append(line.append(f"  {plural(count, 'host'):>10}  ", "blue").append(task))
        slow = [h for h in self._progress.slowest(SLOWEST) if h.task or h.state != "connecting"]
        if slow:
            parts += [Text("  longest at what they do", "dim"), _table([self._row(h, now) for h in slow])]
        return parts


def _table(rows: list[list[Text]]) -> RenderableType:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(max_width=32)
    table.add_column()
    table.add_column(ratio=3)
    table.add_column(justify="right", width=10)
    table.add_column(ratio=4)
    for cells in rows:
        table.add_row(*cells)
    return table
