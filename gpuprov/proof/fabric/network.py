"""Which of this host's addresses and interfaces lead to the others: asked of the kernel, never guessed."""

from __future__ import annotations

import ctypes
import ipaddress
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    import random
    from typing import Iterator, Tuple, Union

    Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
    #: (interface, the network that one of its addresses is in)
    Interface = Tuple[str, Network]

#: Ports that are drawn from: above those of services, below the ones that outgoing connections usually get.
PORTS = range(20000, 32000)


class _Sockaddr(ctypes.Structure):
    _fields_ = (("family", ctypes.c_ushort), ("data", ctypes.c_ubyte * 26))


class _Ifaddrs(ctypes.Structure):
    pass


_Ifaddrs._fields_ = (
    ("next", ctypes.POINTER(_Ifaddrs)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.POINTER(_Sockaddr)),
    ("netmask", ctypes.POINTER(_Sockaddr)),
)


def drawn_ports(count: int, rng: random.Random) -> list[int]:
    """Return *count* different ports. Pure but for *rng*."""
    return rng.sample(PORTS, count)


def own_address(given: str, towards: str) -> str:
    """Return the address of this host that the others see: *given* when it is one of ours, else the route's.

    given is what the controller connects to; behind a bastion or a translated address it is none of ours, and
    then the source address of packets to *towards* is taken. So it is for a name that means 127.0.1.1 here, as a
    host's own name does on Debian. Raises OSError when neither leads anywhere.
    """
    try:
        own = bound(given, socket.SOCK_DGRAM)
    except OSError:
        return routed(towards)
    there = routed(towards)
    if ipaddress.ip_address(own).is_loopback and not ipaddress.ip_address(there.partition("%")[0]).is_loopback:
        return there
    return own


def bound(address: str, kind: int) -> str:
    """Return *address* (or name) as a number, if it is one of this host's. Raises OSError."""
    family, _, _, _, where = socket.getaddrinfo(address, 0, type=kind)[0]
    with socket.socket(family, kind) as probe:
        probe.bind(where)
        return str(probe.getsockname()[0])


def routed(towards: str) -> str:
    """Return the source address that the routing table gives packets to *towards*. Raises OSError."""
    family, kind, _, _, where = socket.getaddrinfo(towards, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(where)  # sends nothing
        return str(probe.getsockname()[0])


def interface_of(address: str) -> str:
    """Return the interface that has *address*, or whose network it is in (127.0.5.1 is lo's); "" when none has."""
    return pick(ipaddress.ip_address(address.partition("%")[0]), list(_interfaces()))


def pick(address: ipaddress.IPv4Address | ipaddress.IPv6Address, interfaces: list[Interface]) -> str:
    """Return the interface with the narrowest network that has *address*, "" when none has. Pure."""
    having = [(network.prefixlen, name) for name, network in interfaces if address in network]
    return max(having)[1] if having else ""


def _interfaces() -> Iterator[Interface]:
    libc = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_Ifaddrs)()
    if libc.getifaddrs(ctypes.byref(first)):
        number = ctypes.get_errno()
        raise OSError(number, "getifaddrs failed")
    try:
        at = first
        while bool(at):  # a null pointer is false
            entry = at.contents
            if entry.address and entry.netmask:
                network = _network(entry.address.contents, entry.netmask.contents)
                if network is not None:
                    yield entry.name.decode(), network
            at = entry.next
    finally:
        libc.freeifaddrs(first)


def _network(address: _Sockaddr, mask: _Sockaddr) -> Network | None:
    # sockaddr_in: port, then 4 bytes; sockaddr_in6: port, flow label, then 16 bytes.
    places = {socket.AF_INET: slice(2, 6), socket.AF_INET6: slice(6, 22)}
    place = places.get(socket.AddressFamily(address.family)) if address.family in tuple(places) else None
    if place is None:
        return None
    bits = bin(int.from_bytes(bytes(mask.data)[place], "big")).count("1")
    return ipaddress.ip_network((bytes(address.data)[place], bits), strict=False)
