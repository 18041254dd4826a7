"""Reading the files of the tables, no more of them than somebody asks for: YAML of a thousand GPUs takes a while."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

#: The GPUs are the last block of their file, one to a line.
_GPUS = "\ngpus:\n"
_GPU = re.compile(r'^    "([0-9a-f]{4})": (\{.*\})', re.MULTILINE)


class Blocks(Mapping[str, Any]):
    """The blocks of compat.yaml, then those of pci_ids.yaml, which is read when one of them is asked for."""

    def __init__(self, own: Mapping[str, Any] | None = None) -> None:
        self._own = _compat() if own is None else own

    def __getitem__(self, name: str) -> Any:
        """Return a block. Raises KeyError."""
        return self._own[name] if name in self._own else _pci_ids()[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names of all blocks."""
        return iter({**_pci_ids(), **self._own})

    def __len__(self) -> int:
        """Return how many there are."""
        return len({**_pci_ids(), **self._own})

    def having(self, changed: Mapping[str, Any]) -> Blocks:
        """Return them with other blocks instead of some."""
        return Blocks({**self._own, **changed})


class Rows(Mapping[str, Any]):
    """GPUs by their ids, each read when it is asked for; all of them at once for who wants to see all."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._written = {found.group(1): found.group(2) for found in _GPU.finditer(text)}
        self._read: dict[str, Any] = {}

    def __getitem__(self, device: str) -> Any:
        """Return a row. Raises KeyError."""
        if device not in self._read:
            self._read[device] = _parsed(self._written[device])
        return self._read[device]

    def __iter__(self) -> Iterator[str]:
        """Yield all ids, for which all rows are read."""
        if len(self._read) < len(self._written):
            self._read = _parsed(self._text)["gpus"]["ids"]
        return iter(self._written)

    def __contains__(self, device: object) -> bool:
        """Say whether there is such a row."""
        return device in self._written

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._written)


@cache
def _compat() -> dict[str, Any]:
    found: dict[str, Any] = _parsed(_text("compat.yaml"))
    return found


@cache
def _pci_ids() -> dict[str, Any]:
    head, _, text = _text("pci_ids.yaml").partition(_GPUS)
    said, _, _ = text.partition("  ids:\n")
    gpus = _parsed(_GPUS + said)["gpus"]
    return {**_parsed(head), "gpus": {**gpus, "ids": Rows(_GPUS + text)}}


def _text(name: str) -> str:
    return files("gpuprov.stack").joinpath("data", name).read_text(encoding="utf-8")


def _parsed(text: str) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(text, Loader=loader)  # noqa: S506 - a safe loader, in C where there is one
