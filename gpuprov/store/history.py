"""What was measured before, which GPUs have a strike, and what a person has acknowledged: one SQLite file.

Tables (schema 1):

    measurements  one row per run, host, GPU and metric whose verdict was good: the past to compare with
    strikes       what the last run over a host found bad, by check and device
    acknowledgements  host, check and device that a person knows of, with owner, reason and the day it ends

Several runs may write at the same time: SQLite's own locks, and one transaction per run. Values of simulated GPUs are
kept under their own mark and never compared with real ones.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuprov.errors import GpuprovError
from gpuprov.store.names import default_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SCHEMA = 1
#: How many earlier values of one GPU and metric are compared with.
PAST_VALUES = 10
#: How long values are kept, seconds: 200 days.
KEEP_S = 200 * 86400.0
#: How long a run waits for another one that is writing, seconds.
WAIT_S = 30.0
_TABLES = """
CREATE TABLE measurements (run TEXT, time REAL, host TEXT, uuid TEXT, metric TEXT, software TEXT, value REAL,
  simulated INTEGER);
CREATE INDEX measurements_of ON measurements (uuid, metric, software, simulated, time, value);
CREATE TABLE strikes (host TEXT, name TEXT, device TEXT, run TEXT, time REAL, PRIMARY KEY (host, name, device));
CREATE TABLE acknowledgements (host TEXT, name TEXT, device TEXT, owner TEXT, reason TEXT, until TEXT, made REAL,
  PRIMARY KEY (host, name, device));
"""


@dataclass(frozen=True, slots=True)
class Value:
    """One good measurement. software names model and versions."""

    host: str
    uuid: str
    metric: str
    software: str
    value: float
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What a person knows of. device "" means every device of the host; until is a day, YYYY-MM-DD, its last."""

    host: str
    name: str
    device: str
    owner: str
    reason: str
    until: str


def default_path() -> str:
    """Return the file that is used when nobody names one: beside the folder of runs."""
    return os.path.join(os.path.dirname(str(default_root())), "history.sqlite")


class History:
    """The file at *path*, made when it is missing. Raises GpuprovError when it is none of ours or cannot be used."""

    def __init__(self, path: str = "") -> None:
        self.path = path or default_path()
        try:
            os.makedirs(os.path.dirname(os.path.abspath(self.path)), mode=0o700, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from None
        try:
            # The journal stays the default one: changing it to WAL does not wait for another run's lock, but fails.
            with self._changing():
                (schema,) = self._db.execute("PRAGMA user_version").fetchone()
                if schema == 0:
                    for statement in _TABLES.strip().rstrip(";").split(";"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version={SCHEMA}")
        except GpuprovError:
            self._db.close()
            raise
        if schema not in (0, SCHEMA):
            self._db.close()
            hint = "update gpuprov, or name another file with --history"
            text = f"{self.path} has schema {schema}, this gpuprov knows {SCHEMA}"
            raise GpuprovError(text, hint=hint, code="history")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _unusable(self, error: Exception) -> GpuprovError:
        """Return *error* as a sentence with what to do about it."""
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            hint = "name another file with --history, or move this one away"
            return GpuprovError(f"{self.path} is no history of gpuprov: {error}", hint=hint, code="history")
        hint = "wait for the other run, see who may write there and whether the disk is full, or use --history"
        said = error.strerror if isinstance(error, OSError) else error
        return GpuprovError(f"{self.path} cannot be used: {said}", hint=hint, code="history")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """One transaction. Raises GpuprovError for what SQLite cannot do; then nothing is changed."""
        with self._reading():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
                    self._db.execute("ROLLBACK")
                raise

    def past(self, uuid: str, metric: str, software: str, simulated: bool = False) -> list[float]:
        """Return the last good values of one GPU, the newest first."""
        return self._values(uuid, metric, software, simulated, "DESC")

    def first(self, uuid: str, metric: str, software: str, simulated: bool = False) -> list[float]:
        """Return the first good values of one GPU, the oldest first."""
        return self._values(uuid, metric, software, simulated, "ASC")

    def _values(self, uuid: str, metric: str, software: str, simulated: bool, order: str) -> list[float]:
        text = "SELECT value FROM measurements WHERE uuid=? AND metric=? AND software=? AND simulated=?"
        text += f" ORDER BY time {order} LIMIT ?"
        with self._reading():
            return [row[0] for row in self._db.execute(text, (uuid, metric, software, simulated, PAST_VALUES))]

    def strikes(self, host: str) -> set[tuple[str, str]]:
        """Return (check, device) of what the last run over *host* found bad."""
        with self._reading():
            return set(self._db.execute("SELECT name, device FROM strikes WHERE host=?", (host,)))

    def record(
        self,
        run: str,
        time: float,
        values: Iterable[Value],
        bad: Iterable[tuple[str, str, str]],
        judged: Iterable[tuple[str, str, str]],
    ) -> None:
        """Keep what a run found: good values, and what is bad of what was judged, as (host, check, device).

        What was judged and is not bad loses its strike.
        """
        with self._changing():
            self._db.executemany("DELETE FROM strikes WHERE host=? AND name=? AND device=?", list(judged))
            strikes = [(*one, run, time) for one in bad]
            self._db.executemany("INSERT OR REPLACE INTO strikes VALUES (?,?,?,?,?)", strikes)
            rows = [(run, time, v.host, v.uuid, v.metric, v.software, v.value, v.simulated) for v in values]
            self._db.executemany("INSERT INTO measurements VALUES (?,?,?,?,?,?,?,?)", rows)
            # rows lie in the order of time: the first one says whether any is too old
            (oldest,) = self._db.execute("SELECT time FROM measurements ORDER BY rowid LIMIT 1").fetchone() or (time,)
            if oldest < time - KEEP_S:
                self._db.execute("DELETE FROM measurements WHERE time < ?", (time - KEEP_S,))

    def acknowledge(self, one: Acknowledgement, time: float) -> None:
        """Keep an acknowledgement; it replaces an earlier one of the same thing."""
        row = (one.host, one.name, one.device, one.owner, one.reason, one.until, time)
        with self._changing():
            self._db.execute("INSERT OR REPLACE INTO acknowledgements VALUES (?,?,?,?,?,?,?)", row)

    def withdraw(self, host: str, name: str, device: str) -> bool:
        """Remove an acknowledgement; say whether there was one."""
        text = "DELETE FROM acknowledgements WHERE host=? AND name=? AND device=?"
        with self._changing():
            return self._db.execute(text, (host, name, device)).rowcount > 0

    def acknowledgements(self) -> Sequence[Acknowledgement]:
        """Return all of them, expired ones too."""
        text = "SELECT host, name, device, owner, reason, until FROM acknowledgements ORDER BY host, name, device"
        with self._reading():
            return [Acknowledgement(*row) for row in self._db.execute(text)]
