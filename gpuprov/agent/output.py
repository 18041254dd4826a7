"""Live output of a task: lines into TaskOutput events, not more often than a person can read."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.agent.journal import Journal

#: Lines that come closer together than this travel in one event.
EVERY_S = 0.1
#: What one task may add to the journal this way.
TASK_LIMIT_BYTES = 1024 * 1024


class LiveOutput:
    """Collects the lines of one task and writes them in handfuls. With *hidden*, swallows them.

    A task that ends before anybody could look has its output in its result, and nothing here.
    """

    def __init__(self, journal: Journal, task: str, hidden: bool = False) -> None:
        self._journal = journal
        self._task = task
        self._hidden = hidden
        self._lines: list[str] = []
        self._stream = "stdout"
        self._left = TASK_LIMIT_BYTES
        self._last = time.monotonic()
        self._shown = False

    def line(self, stream: str, text: str) -> None:
        """Take one line."""
        if self._hidden or self._left <= 0 or self._journal.output_left <= 0:
            return
        if stream != self._stream and self._lines:
            self.flush()
        self._stream = stream
        self._lines.append(text)
        self._left -= len(text)
        self._journal.output_left -= len(text)
        if self._left <= 0 or self._journal.output_left <= 0:
            self._lines.append("(further output of this task is not shown)")
        if time.monotonic() - self._last >= EVERY_S or len(self._lines) > 200:
            self.flush()

    def flush(self) -> None:
        """Write what is there."""
        self._shown = True
        if self._lines:
            lines, self._lines = self._lines, []
            self._last = time.monotonic()
            self._journal.write("TaskOutput", id=self._task, stream=self._stream, text="\n".join(lines))

    def finish(self) -> None:
        """The task is over: write the rest, if anything was shown before."""
        if self._shown:
            self.flush()
        self._lines = []
