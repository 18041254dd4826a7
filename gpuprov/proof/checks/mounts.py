"""What is mounted, and what /etc/fstab wants to be. Reading and parsing only."""

from __future__ import annotations

import re
from typing import NamedTuple

from gpuprov.proof.checks.host_files import needed, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuprov.proof.parts import Context

#: File systems on a disk of this host: asking them cannot hang on a server.
LOCAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs", "vfat", "overlay")
#: File systems that ask a server: a dead one holds whoever asks.
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "lustre", "ceph", "gpfs", "beegfs", "9p", "afs", "glusterfs", "wekafs")
_NETWORK_FUSE = tuple("fuse." + name for name in ("sshfs", "glusterfs", "ceph", "juicefs", "gcsfuse", "s3fs", "rclone"))


class Mount(NamedTuple):
    """A line of /proc/mounts or /etc/fstab."""

    source: str
    point: str
    kind: str
    options: tuple[str, ...]

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written there."""
        return "ro" in self.options

    @property
    def network(self) -> bool:
        """Whether a server is asked."""
        return self.kind in NETWORK or self.kind in _NETWORK_FUSE


def mounts(context: Context) -> list[Mount]:
    """Return what is mounted, of each place what was mounted last. Raises Untold."""
    found = {mount.point: mount for mount in parsed(needed(context, "/proc/self/mounts"))}
    return list(found.values())


def wanted(context: Context) -> list[Mount] | None:
    """Return what /etc/fstab wants mounted at each start; None when there is no such file. Raises Untold."""
    table = text(context, "/etc/fstab")
    if table is None:
        return None
    entries = [entry for entry in parsed(table) if entry.point.startswith("/") and entry.kind != "swap"]
    return [entry for entry in entries if "noauto" not in entry.options]


def parsed(table: str) -> list[Mount]:
    """Return the lines of a table of mounts. Pure."""
    found = []
    for line in table.splitlines():
        words = [_plain(word) for word in line.split()]
        if len(words) >= 3 and not words[0].startswith("#"):
            options = words[3].split(",") if len(words) > 3 else ["defaults"]
            point = words[1].rstrip("/") or "/"
            found.append(Mount(words[0], point if words[1].startswith("/") else words[1], words[2], tuple(options)))
    return found


def _plain(word: str) -> str:
    r"""Return a word without the kernel's "\040" for a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), word)
