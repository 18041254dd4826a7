"""Survey: which kernel GRUB boots next, from its configuration, its environment block and its entry files."""

from __future__ import annotations

import re

from gpuprov.agent.survey_host import Host, Untold

_FOLDERS = ("/boot/grub2", "/boot/grub")
ENTRIES = "/boot/loader/entries"
_DEFAULT = re.compile(r"^\s*set\s+default=[\"']?(.*?)[\"']?\s*$", re.MULTILINE)
_MENU = re.compile(r"^\s*(menuentry|submenu)\s+(?:'([^']*)'|\"([^\"]*)\"|(\S+))(.*)\{\s*$")
_ID = re.compile(r"(?:\$menuentry_id_option|--id)[ =]+['\"]?([^'\" {]+)")
_LINUX = re.compile(r"^\s*linux(?:16|efi)?\s+(\S+)")
_PARTS = re.compile(r"(\d+|[a-zA-Z]+|~)")


class Entry:
    """One entry of GRUB's menu, or a submenu with entries of its own."""

    def __init__(self, title: str, name: str, submenu: bool) -> None:
        self.title = title
        self.name = name
        self.submenu = submenu
        self.image = ""
        self.entries: list[Entry] = []


def default_image(host: Host) -> str | None:
    """Return the kernel image of the entry that boots next; None when GRUB does not boot this host. Raises Untold."""
    config = ""
    for folder in (*_FOLDERS, *("/boot/efi/EFI/" + name for name in host.names("/boot/efi/EFI"))):
        text = host.text(folder + "/grub.cfg")
        if "menuentry" in text or "blscfg" in text:  # a stub on the EFI partition only points to the real one
            config = text
            break
    else:
        return None
    if _DEFAULT.search(host.text(folder + "/custom.cfg")):
        raise Untold("%s/custom.cfg sets another default" % folder)
    block = _environment(host, folder)
    files = _entry_files(host) if re.search(r"^\s*blscfg\b", config, re.MULTILINE) else []
    entries = files + menu(config)
    if not entries:
        raise Untold("GRUB's menu is empty")
    entry = _chosen(entries, _wanted(config, block))
    if not entry.image:
        raise Untold("GRUB's default entry %r starts no Linux kernel" % entry.title)
    return re.sub(r"^\([^)]*\)", "", entry.image)


def _wanted(config: str, block: dict[str, str]) -> str:
    """Return the name, title or number of the entry that boots next."""
    if block.get("next_entry"):
        return block["next_entry"]
    settings = [value for value in _DEFAULT.findall(config) if "next_entry" not in value]
    value = settings[-1] if settings else "0"
    for name in ("saved_entry", "default"):
        value = value.replace("${%s}" % name, block.get(name, ""))
    if "$" in value:
        raise Untold("GRUB's default is %r, which is known only when it boots" % value)
    return value or "0"


def _chosen(entries: list[Entry], wanted: str) -> Entry:
    """Return the entry that *wanted* names, by number ("1>2"), name or title; else the first, as GRUB does."""
    level, entry = entries, None
    for word in wanted.split(">"):
        entry = _one(level, word)
        if entry is None:
            entry = entries[0]
            break
        level = entry.entries
    assert entry is not None
    if entry.submenu:
        raise Untold("GRUB's default is the submenu %r" % entry.title)
    return entry


def _one(level: list[Entry], word: str) -> Entry | None:
    if word.isdigit() and int(word) < len(level):
        return level[int(word)]
    return next((entry for entry in level if word in (entry.name, entry.title)), None)


def menu(config: str) -> list[Entry]:
    """Return the entries of a grub.cfg."""
    root = Entry("", "", True)
    stack: list[Entry | None] = [root]  # None for the braces of functions
    for line in config.splitlines():
        opened = _MENU.match(line)
        if opened:
            kind, one, two, three, rest = opened.groups()
            name = _ID.search(rest)
            entry = Entry(one or two or three or "", name.group(1) if name else "", kind == "submenu")
            (_inner(stack) or root).entries.append(entry)
            stack.append(entry)
        elif line.rstrip().endswith("{") and not line.rstrip().endswith("${"):
            stack.append(None)
        elif line.strip() == "}" and len(stack) > 1:
            stack.pop()
        else:
            found, inner = _LINUX.match(line), _inner(stack)
            if found and inner is not None and not inner.image:
                inner.image = found.group(1)
    return root.entries


def _inner(stack: list[Entry | None]) -> Entry | None:
    return next((entry for entry in reversed(stack) if entry is not None), None)


def _environment(host: Host, folder: str) -> dict[str, str]:
    lines = host.text(folder + "/grubenv").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def _entry_files(host: Host) -> list[Entry]:
    """Return the entries of the boot loader specification, in GRUB's order: the newest first."""
    found = []
    for name in host.names(ENTRIES):
        if name.endswith(".conf"):
            lines = host.text("%s/%s" % (ENTRIES, name)).splitlines()
            fields = {line.split()[0]: line.split()[1] for line in lines if len(line.split()) > 1}
            entry = Entry(name, name[: -len(".conf")], False)
            entry.image = fields.get("linux", "")
            found.append(entry)
    return sorted(found, key=lambda entry: version_key(entry.name), reverse=True)


def version_key(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts as rpm compares versions: numbers above letters, ~ below everything."""
    key: list[tuple[int, int, str]] = []
    for part in _PARTS.findall(text):
        key.append((2, int(part), "") if part.isdigit() else (-1, 0, "") if part == "~" else (1, 0, part))
    return [*key, (0, 0, "")]
