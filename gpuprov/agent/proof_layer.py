"""Unpack the proof's sources where the provisioned Python can import (and torch can compile) them."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from zipfile import ZipFile

    from gpuprov.agent.system import System


def unpack(home: str, sha256: str, system: System) -> str:
    """Return the folder that has gpuprov/proof, unpacked from its layer and just compared with it."""
    folder = os.path.join(home, "bundle", "proof-" + os.path.basename(sha256))
    path = folder + ".zip"
    if system.sha256(path) != sha256:
        os.unlink(path)
        raise OSError(5, "the proof layer is damaged and was removed; run again", path)
    import zipfile

    with zipfile.ZipFile(path) as archive:
        if not _unpacked(archive, folder, system):
            archive.extractall(folder)
    return folder


def _unpacked(archive: ZipFile, folder: str, system: System) -> bool:
    """Say whether every file is there as it was packed: a power cut may have emptied some."""
    from zlib import crc32

    try:
        return all(crc32(system.read(os.path.join(folder, one.filename))) == one.CRC for one in archive.infolist())
    except OSError:
        return False
