"""Loopback addresses and ports: whose they are, and which are taken."""

from __future__ import annotations

import socket
import sys

#: Labs that can run at once: each has a block of 1024 addresses, the first from 127.0.4.0 on.
BLOCKS = range(1, 64)


def address_of(block: int, index: int) -> str:
    """Return the address of host *index* (from 1) of the lab that has *block*."""
    high, low = divmod(index - 1, 250)
    return f"127.0.{4 * block + high}.{low + 1}"


def lock_block(preferred: int | None) -> tuple[int, socket.socket]:
    """Take a block that no other lab of this machine has, *preferred* if it is free.

    The lock is a name in the kernel's table of sockets: it goes when the process does.
    Raises OSError when all are taken.
    """
    for block in (*([preferred] if preferred else []), *BLOCKS):
        lock = socket.socket(socket.AF_UNIX)
        try:
            lock.bind(f"\0gpuprov-lab-{block}")
        except OSError:
            lock.close()
            continue
        return block, lock
    raise OSError(f"all {len(BLOCKS)} blocks of addresses are taken by other labs")


def listening_addresses() -> set[tuple[str, int]]:
    """Return (address, port) of all that listens on an IPv4 address of this machine."""
    found = set()
    with open("/proc/net/tcp", encoding="ascii") as f:
        next(f)
        for line in f:
            fields = line.split()
            if fields[3] == "0A":
                address, _, port = fields[1].partition(":")
                packed = int(address, 16).to_bytes(4, sys.byteorder)
                found.add((socket.inet_ntoa(packed), int(port, 16)))
    return found


def free_port(preferred: int) -> int:
    """Return the first port from *preferred* on that nothing holds on all addresses at once."""
    everywhere = {port for address, port in listening_addresses() if address == "0.0.0.0"}  # noqa: S104
    return next(port for port in range(preferred, 65536) if port not in everywhere)
