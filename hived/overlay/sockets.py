"""The TCP sockets of the overlay: listeners, and what is dialled."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Sequence
from dataclasses import replace

import trio

from ..errors import conflict, failed
from ..transport import socketend
from ..transport.listeners import Kept, is_reserved
from .addresses import Endpoint

_BACKLOG = 512


Origin = tuple[str, int]
"""An address and port of ours to dial from."""


OWNER = "overlay"
"""Of the listeners here, among those that are kept."""


def bind(end: Endpoint, kept: Kept) -> trio.SocketListener:
    """A listener, perhaps a kept one. Raises HiveError: conflict where the port is taken, else failed."""
    family = socket.AF_INET6 if end.kind == "ip6" else socket.AF_INET
    what = f"listening on {end} failed"
    if not end.kind.startswith("ip"):
        raise failed(what, "a listener needs an IP address", "Name one: --listen /ip4/ADDRESS/tcp/PORT")
    before = kept.take(OWNER, end.host, end.port)
    if before is not None:
        return trio.SocketListener(trio.socket.from_stdlib_socket(before))
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((end.host, end.port))
        # Only now, so that a port on which somebody listens is taken: what is dialled leaves from this one.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise conflict(
                what, "the port is taken", "Choose another with --listen, or stop what uses it"
            ) from None
        if is_reserved(end.port, error):
            raise failed(
                what, "hived may not use ports below 1024 here", "Choose one above 1023 with --listen"
            ) from None
        if error.errno == errno.EADDRNOTAVAIL:
            everywhere = replace(end, host="::" if end.kind == "ip6" else "0.0.0.0")
            raise failed(
                what,
                "this machine does not have that address, or not yet",
                f"Name one that it has; on all of them: --listen {everywhere}",
            ) from None
        raise failed(what, error.strerror or str(error), "Check --listen") from None
    sock.setblocking(False)
    kept.keep(OWNER, end.host, end.port, sock)
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def take(stream: trio.SocketStream) -> socket.socket:
    """The socket itself, which trio forgets."""
    family = stream.socket.family
    taken = socket.socket(family, socket.SOCK_STREAM, fileno=stream.socket.detach())
    taken.setblocking(False)
    return taken


def abort(stream: trio.SocketStream) -> None:
    """Close with a reset: no more packets, and no state for a peer that is not wanted."""
    socketend.abort(take(stream))


async def connect(
    end: Endpoint, origins: Sequence[Origin] = (), *, insist: bool = False
) -> tuple[trio.SocketStream, bool]:
    """Connect, from one of our listeners' ports where that can be; and whether it did. Raises OSError.

    Leaving from there, a NAT shows others the mapping of the listener itself, which is what they must dial.
    ``insist``: from no other port, where there is one of these.
    """
    family = {"4": socket.AF_INET, "6": socket.AF_INET6}.get(end.kind[-1], socket.AF_UNSPEC)
    found = await trio.socket.getaddrinfo(end.host, end.port, family, socket.SOCK_STREAM)
    last: OSError = OSError("the name has no address")
    for kind, _, _, _, address in found:
        fitting = _origins(kind, str(address[0]), origins)
        for origin in fitting if insist and fitting else (*fitting, None):
            try:
                return await _connect_from(kind, address, origin), origin is not None
            except OSError as error:
                last = error
                if origin is None or error.errno not in _ORIGIN_TAKEN:
                    break
    raise last


# A connection between the same two ports lives, or has just ended.
_ORIGIN_TAKEN = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EINVAL)


def _origins(kind: int, host: str, origins: Sequence[Origin]) -> list[Origin]:
    """The origins that can reach a host: of its family, and none on this machine, where there is no NAT."""
    if ipaddress.ip_address(host.split("%")[0]).is_loopback:
        return []
    version = 6 if kind == socket.AF_INET6 else 4
    fitting = [origin for origin in origins if ipaddress.ip_address(origin[0]).version == version]
    return [origin for origin in fitting if not ipaddress.ip_address(origin[0]).is_loopback][:1]


async def _connect_from(kind: int, address: tuple[object, ...], origin: Origin | None) -> trio.SocketStream:
    sock = trio.socket.socket(kind, socket.SOCK_STREAM)
    try:
        if origin is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            await sock.bind(origin)
        await sock.connect(address)
        if sock.getsockname() == sock.getpeername():
            raise OSError("connected to itself")
        return trio.SocketStream(sock)
    except BaseException:
        sock.close()
        raise


def why(error: OSError) -> str:
    """What went wrong, for people."""
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    # trio's own text repeats the address, which the caller names anyway.
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
