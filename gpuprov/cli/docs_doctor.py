"""The page about the doctor's table, generated from the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuprov.doctor.table import FILES
from gpuprov.report.findings import SYSTEM_NAMES

if TYPE_CHECKING:
    from gpuprov.doctor.table import Row, Table

INTRODUCTION = """# Doctor

From what is seen to what is wrong and the command that repairs it.

    gpuprov doctor inventory/gpu.yaml gpu07          # looks at hosts; all of the inventory without a name
    gpuprov doctor --text "Driver/library version mismatch"
    dmesg | gpuprov doctor                           # or: gpuprov doctor < LOG

For each trouble it prints the line that shows it, the cause, a command that confirms it (`check`) and the commands that
repair it (`fix`), for the host's own distribution where a host was asked. Lines that start with `#` are remarks. A
trouble that is only the consequence of another one that was found stands behind it, without commands of its own. Hosts
with the same findings are shown together. Nothing is changed anywhere.

Exit codes: 0 nothing was found, 3 something was, 5 bad input; with hosts also those of docs/exit-codes.md.
`--json` prints the same as data.

**Text.** Each line is given to the first row whose pattern fits; in pasted text (up to 2,000 lines) a message that was
broken over two lines is found, too. Of a log above 4 MiB the end is read. What a log puts into a command (a kernel's
name, a package) is taken only when it is a plain word; otherwise the command has a placeholder in capitals.

**Hosts.** Nothing is installed, locked or run as a plan: the agent collects evidence and goes. It reads the kernel's
log, DKMS, the package manager, the loader's cache, nvidia-smi, services, the environment that a login shell has, and
asks the torch environment (`gpuprov_torch_virtualenv`). Each program has a deadline, and one that hangs is evidence
itself. The lines are matched like pasted text; beyond that, rows have conditions over the host's facts. What the host
does not tell is listed under `could not be told`, with the rows that need it: nothing found then does not mean that all
is well.

The rows are in `gpuprov/doctor/symptoms/*.yaml`; `gpuprov docs doctor ROW` shows one whole, with its patterns, commands
and sources. This page is generated: `gpuprov docs doctor > docs/doctor.md`.
"""
TOPICS = {
    "packages": "Packages and repositories",
    "driver": "Driver and kernel module",
    "fabric": "NVSwitch and fabric",
    "hardware": "Hardware, firmware, Xids",
    "containers": "Containers",
    "nccl": "NCCL and multi-GPU",
    "cuda": "CUDA and the toolkit",
    "python": "Python, pip, wheels",
    "torch": "torch",
    "system": "Disk, network, memory",
}


def page(table: Table) -> str:
    """Return the whole page as Markdown. Pure."""
    parts = [INTRODUCTION, f"{len(table)} rows.\n"]
    for name in FILES:
        rows = [row for row in table if row.position is not None and row.position.path.endswith(f"/{name}.yaml")]
        lines = ["| row | trouble | cause |", "|---|---|---|"]
        lines += [f"| `{row.id}` | {_cell(row.title)} | {_cell(_plain(row.cause))} |" for row in rows]
        parts.append("\n".join([f"## {TOPICS[name]}\n", *lines, ""]))
    return "\n".join(parts)


def row_page(row: Row) -> str:
    """Return all of one row as Markdown."""
    parts = [f"## {row.id}\n", f"{row.title} ({row.severity}).\n", f"{_plain(row.cause)}\n"]
    if row.patterns:
        parts.append(_code("Found in text by", [pattern.pattern for pattern in row.patterns]))
    if row.host:
        parts.append(_code("Found on hosts by", [condition.when for condition in row.host]))
    parts.append(_code("Check", row.check))
    for system, commands in row.fix.items():
        name = SYSTEM_NAMES.get(system, "others" if len(row.fix) > 1 else "")
        parts.append(_code(f"Fix, {name}" if name else "Fix", commands))
    if row.explains:
        parts.append(f"Explains {', '.join(f'`{other}`' for other in row.explains)}.\n")
    return "\n".join([*parts, f"Sources: {'; '.join(row.sources)}.\n"])


def _code(title: str, lines: tuple[str, ...] | list[str]) -> str:
    return "\n".join([f"{title}:\n", *(f"    {line}" for line in lines), ""])


def _plain(template: str) -> str:
    """Return a cause with nothing filled in."""
    from gpuprov.templating.renderer import Renderer

    return str(Renderer({}, {}).render(template))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
