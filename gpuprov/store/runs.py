"""The run folder: what one run leaves on the admin's machine, readable while it runs and after a crash.

    <root>/20261123-154501-a1b2c3/
      run.json        the run, its state, and one short entry per host
      hosts/*.json    everything about one host
      journal.jsonl   every event as it came
      options.json    what `gpuprov resume` needs; never secrets
      report.html     the report to look at

Folders are 0700 and files 0600. Documents are plain JSON objects; report/jsonout.py makes them
from reports and reads them back.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from gpuprov.errors import GpuprovError, UsageError
from gpuprov.store.journal import Journal
from gpuprov.store.names import default_root, file_name, is_run_id, new_run_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: What run.json repeats of every host.
SUMMARY_KEYS = ("host", "outcome", "cause", "hint", "verdict", "exit_code", "totals", "coverage", "simulated")
_SECRET_KEY = re.compile(r"(?i)pass(?:word|wd|phrase)?$|secret|token|api_?key|credential|private_key$")
_SECRET_ASSIGNMENT = re.compile(
    r"""(?i)(\w*(?:pass|secret|token|api_?key|credential)\w*(?<!_file)["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s"',}]+)"""
)


class RunFolder:
    """One run's folder. Written by one thread of one process at a time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.run = os.path.basename(path)
        self._journal = Journal(os.path.join(path, "journal.jsonl"))

    @classmethod
    def create(
        cls,
        root: str = "",
        *,
        run: str = "",
        document: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> RunFolder:
        """Make a folder for a new run under *root* (default: the user's state folder).

        document is the report as far as known (state "running"); options go to options.json
        with everything that looks like a secret taken out; "left_out" then says where. Raises GpuprovError.
        """
        run = run or new_run_id()
        path = os.path.join(root or default_root(), run)
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.mkdir(path, 0o700)
            os.mkdir(os.path.join(path, "hosts"), 0o700)
            folder = cls(path)
            kept, left_out = without_secrets(options or {})
            folder.write("options.json", dump({**kept, "left_out": left_out} if left_out else kept))
            folder.write_run({"hosts": [], **(document or {}), "run": run, "state": "running", "exit_code": None})
        except OSError as error:
            raise GpuprovError(
                f"cannot make the run folder {path}: {error.strerror}",
                hint="give another place with --run-dir",
                code="run-folder",
            ) from error
        return folder

    @classmethod
    def open(cls, path: str) -> RunFolder:
        """Open the folder of an earlier run. Raises UsageError when it is none."""
        if not os.path.isfile(os.path.join(path, "run.json")):
            raise UsageError(
                f"{path} is not a run folder: it has no run.json", hint="gpuprov report --list shows all runs"
            )
        return cls(os.path.realpath(path))

    # The journal

    def append(self, host: str, event: bytes | Mapping[str, Any]) -> None:
        """Add one event of *host*: its JSON text as it came, or the object."""
        self._journal.append(host, event)

    def tick(self, now: float) -> None:
        """Write what is due. Call it about once a second with time.monotonic()."""
        self._journal.tick(now)

    def flush(self) -> None:
        """Write every event that was appended."""
        self._journal.flush()

    def last_seq(self, host: str) -> int:
        """Return the number of the newest event of *host*, 0 when there is none."""
        return self._journal.last_seq(host)

    def events(self, host: str) -> Iterator[dict[str, Any]]:
        """Yield all events of *host* in the order in which they came (some maybe twice)."""
        return self._journal.events(host)

    def all_events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (host, event) of the whole run in the order in which they came."""
        return self._journal.all_events()

    # Documents

    def finish(self, document: Mapping[str, Any]) -> None:
        """Write hosts/*.json and the final run.json from the run's document, and close the journal."""
        self._journal.close()
        for host in document["hosts"]:
            self.write(self._host_file(host["host"]), dump(host))
        self.write_run(document)

    def write_run(self, document: Mapping[str, Any]) -> None:
        """Write run.json, with one short entry per host."""
        hosts = [{k: h[k] for k in SUMMARY_KEYS if k in h} for h in document["hosts"]]
        text = json.dumps({**document, "hosts": hosts}, indent=1, default=str)
        self.write("run.json", text.encode(), durable=True)

    def summary(self) -> dict[str, Any]:
        """Return run.json: the run, and one short entry per host."""
        return self._load("run.json")

    def document(self) -> dict[str, Any]:
        """Return the run's whole document, hosts included. Raises UsageError when files are damaged."""
        document = self._load("run.json")
        document["hosts"] = [self._load(self._host_file(str(h.get("host")))) for h in document.get("hosts", ())]
        return document

    def options(self) -> dict[str, Any]:
        """Return what the run was started with."""
        return self._load("options.json")

    def write(self, name: str, data: bytes, *, durable: bool = False) -> str:
        """Replace file *name* at once; return its path. durable: it also survives a power cut."""
        target = os.path.join(self.path, name)
        temporary = f"{target}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(descriptor)
        os.rename(temporary, target)
        return target

    def _host_file(self, host: str) -> str:
        return os.path.join("hosts", f"{file_name(host)}.json")

    def _load(self, name: str) -> dict[str, Any]:
        path = os.path.join(self.path, name)
        try:
            with open(path, encoding="utf-8") as file:
                document = json.load(file)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}", code="run-folder") from error
        except ValueError as error:
            raise UsageError(f"{path} is damaged: {error}", code="run-folder") from error
        if not isinstance(document, dict):
            raise UsageError(f"{path} is damaged: not a JSON object", code="run-folder")
        return document


def dump(document: Mapping[str, Any]) -> bytes:
    """Return compact JSON. Values that are no JSON become their text."""
    return json.dumps(document, separators=(",", ":"), default=str).encode()


def runs(root: str = "") -> list[str]:
    """Return the paths of all run folders under *root*, oldest first."""
    root = root or default_root()
    try:
        names = os.listdir(root)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = (os.path.join(root, name) for name in sorted(names) if is_run_id(name))
    return [path for path in found if os.path.isfile(os.path.join(path, "run.json"))]


def latest(root: str = "") -> RunFolder | None:
    """Return the newest run, None when there is none."""
    paths = runs(root)
    return RunFolder.open(paths[-1]) if paths else None


def find(name: str = "", root: str = "") -> RunFolder:
    """Return the run called *name*: an id, the start of one, a path; "" is the newest. Raises UsageError."""
    if os.sep in name:
        return RunFolder.open(name)
    paths = runs(root)
    found = [p for p in paths if os.path.basename(p).startswith(name)]
    if not paths:
        raise UsageError(f"there is no run in {root or default_root()}", hint="gpuprov apply INVENTORY makes one")
    if not name:
        return RunFolder.open(paths[-1])
    if len(found) != 1:
        what = "no run" if not found else f"{len(found)} runs"
        newest = ", ".join(os.path.basename(p) for p in (found or paths)[-3:])
        raise UsageError(f"{what} called {name}", hint=f"the newest are {newest}")
    return RunFolder.open(found[0])


def without_secrets(value: Any, where: str = "") -> tuple[Any, list[str]]:
    """Return *value* without what looks like a secret, and where that was.

    Values of keys like db_password become None, `db_password=...` in text becomes `db_password=***`.
    """
    if isinstance(value, dict):
        kept: dict[Any, Any] = {}
        found: list[str] = []
        for key, item in value.items():
            place = f"{where}.{key}" if where else str(key)
            # a bool only says whether to ask ("ask_become_pass")
            if _SECRET_KEY.search(str(key)) and isinstance(item, str | int) and item not in ("", True, False):
                kept[key] = None
                found.append(place)
            else:
                kept[key], more = without_secrets(item, place)
                found += more
        return kept, found
    if isinstance(value, list | tuple):
        pairs = [without_secrets(v, f"{where}[{i}]") for i, v in enumerate(value)]
        return [item for item, _ in pairs], [place for _, places in pairs for place in places]
    if isinstance(value, str) and _SECRET_ASSIGNMENT.search(value):
        return _SECRET_ASSIGNMENT.sub(r"\1***", value), [where]
    return value, []
