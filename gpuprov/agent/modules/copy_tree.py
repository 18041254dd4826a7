"""Whole folders for `copy`: each file by its hash, folders made on the way."""

from __future__ import annotations

import os
import stat

from gpuprov.agent.modules import attributes
from gpuprov.agent.modules.attributes import Attributes, lstat
from gpuprov.agent.modules.base import Change, ModuleError
from gpuprov.agent.modules.content import difference, not_planned, put
from gpuprov.agent.modules.copy import folder_attributes
from gpuprov.agent.modules.source import Source, remote, travelled
from gpuprov.agent.modules.tree import make_folders, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from gpuprov.agent.modules.base import Call


def probe(call: Call) -> Change:
    """Compare every file of the tree with the one below dest."""
    dest = _dest(call.args)
    not_planned(call, dest)
    change = Change(result={"dest": dest, "src": call.args.get("src", "")})
    for path, source in _entries(call):
        found = lstat(path)
        if source is None:
            _probe_folder(path, found, change)
        elif found is not None and stat.S_ISDIR(found.st_mode):
            raise ModuleError("%s is a directory, not a file" % path, code="is-a-directory")
        elif found is not None and not call.args["force"]:
            continue
        else:
            _probe_file(call, path, source, found, change)
    if change.differences and call.check:
        call.pending.update([dest, *change.differences])
    change.result.update(attributes.info(call, dest))
    return change


def converge(call: Call) -> None:
    """Make the folders and replace the files that differ."""
    folder = folder_attributes(call)
    for path, source in _entries(call):
        found = lstat(path)
        if source is None:
            if found is None:
                make_folders(path, folder)
            continue
        if found is not None and not call.args["force"]:
            continue
        wanted = _wanted(call, source)
        if found is None or not source.same_as(path, found):
            if not os.path.isdir(os.path.dirname(path)):
                make_folders(os.path.dirname(path), folder)
            put(call, path, wanted, source=source.path)
        wanted.apply(path)


def missing(args: dict[str, Any]) -> list[str]:
    """Return the sha256 of the tree's files that are not below dest yet."""
    dest = _dest(args)
    hashes = []
    for entry in args["_tree"]:
        if entry.get("dir"):
            continue
        path = os.path.join(dest, entry["path"])
        found = lstat(path)
        if found is None or not travelled(None, entry).same_as(path, found):
            hashes.append(entry["sha256"])
    return hashes


def _dest(args: dict[str, Any]) -> str:
    dest = attributes.path(args["dest"]).rstrip("/") or "/"
    if args.get("remote_src") and not args["src"].endswith("/"):
        dest = os.path.join(dest, os.path.basename(args["src"]))
    return dest


def _entries(call: Call) -> Iterator[tuple[str, Source | None]]:
    """Yield (path on the host, content) of the tree; None for a folder. The root comes first."""
    dest = _dest(call.args)
    yield dest, None
    if call.args.get("_tree") is not None:
        for entry in call.args["_tree"]:
            yield os.path.join(dest, entry["path"]), None if entry.get("dir") else travelled(call, entry)
        return
    src = attributes.path(call.args["src"]).rstrip("/")
    for path, found in walk(src):
        target = os.path.join(dest, os.path.relpath(path, src))
        if stat.S_ISDIR(found.st_mode):
            yield target, None
        elif stat.S_ISREG(os.stat(path).st_mode):
            yield target, remote(path)


def _probe_folder(path: str, found: os.stat_result | None, change: Change) -> None:
    if found is None:
        change.differences.append(path)
    elif not os.path.isdir(path):
        raise ModuleError("%s is there already and is not a directory" % path, code="not-a-directory")


def _probe_file(call: Call, path: str, source: Source, found: os.stat_result | None, change: Change) -> None:
    wanted = _wanted(call, source)
    same = found is not None and source.same_as(path, found)
    if same and found is not None and not wanted.differences(found):
        return
    change.differences.append(path)
    if call.diff and not same:
        before = call.system.read(path) if found is not None and stat.S_ISREG(found.st_mode) else None
        change.diff.append(difference(path, before, source.read(call)))


def _wanted(call: Call, source: Source) -> Attributes:
    mode = call.args.get("mode")
    if mode == "preserve" and source.mode is not None:
        mode = "%04o" % source.mode
    return Attributes(call, mode)
