"""Egress listeners that outlive a restart, or were opened for hived by the service manager."""

from __future__ import annotations

import contextlib
import os
import socket
from weakref import WeakSet

import trio

from ..errors import HiveError, conflict
from ..transport.listeners import Kept
from ..transport.socketend import abort
from . import egress

_AT_ONCE = 256
_PAUSE_SECONDS = 0.1


class Listeners:
    """The listeners of egress proxies, by the proxy's ID, address (None: all) and port: none is another's."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        # Who has them closes them; until then they are in use.
        self._given: WeakSet[socket.socket] = WeakSet()
        # All that was opened for hived, while whoever comes in vain is turned away.
        self._opened: list[socket.socket] = []

    async def turn_away(self) -> None:
        """Nobody waits in vain at a port opened for hived while no proxy listens there; until cancelled."""
        self._opened = self._kept.opened()
        try:
            async with trio.open_nursery() as nursery:
                for sock in self._opened:
                    nursery.start_soon(self._turn_away, sock)
        finally:
            self._opened = []

    async def _turn_away(self, listener: socket.socket) -> None:
        with listener:
            while True:
                await trio.lowlevel.wait_readable(listener)
                if not self._is_used(listener):
                    with contextlib.suppress(OSError):
                        for _ in range(_AT_ONCE):
                            abort(listener.accept()[0])
                # Readable also while its proxy accepts, or where accepting fails.
                await trio.sleep(_PAUSE_SECONDS)

    def _is_used(self, listener: socket.socket) -> bool:
        return any(_is_copy(sock, listener) for sock in self._given)

    def before(self, proxy_id: int, host: str | None, port: int) -> list[socket.socket]:
        """The listeners of a proxy that runs anew, still listening; none for one that is new."""
        found: list[socket.socket] = []
        missing: list[str] = []
        for text in egress.hosts(host):
            sock = self._kept.take(_owner(proxy_id), text, port)
            if sock is not None:
                found.append(sock)
            else:
                missing.append(text)
        if found:
            for text in missing:
                # As at any start, IPv6 may be missing.
                with contextlib.suppress(HiveError):
                    found += egress.bind(text, port)
        return found

    def given(self, host: str | None, port: int) -> list[socket.socket]:
        """Listeners that a socket unit opened for hived. Raises HiveError (conflict) while they are used."""
        found = self._kept.given(host, port)
        if any(self._is_used(sock) for sock in found):
            for sock in found:
                sock.close()
            raise conflict(
                f"listening on {host or '*'}:{port} failed",
                f"hived listens on port {port} already",
                "See hivectl proxy, and what hivectl forward runs",
            )
        for sock in found:
            egress.prepare(sock)
            self._given.add(sock)
        return found

    def is_given(self, port: int) -> bool:
        """Whether a socket unit opened that port, on whichever address."""
        found = self._kept.opened()
        ports = [sock.getsockname()[1] for sock in found]
        for sock in found:
            sock.close()
        return port in ports

    def idle(self) -> list[int]:
        """The ports that a socket unit opened, while no proxy listens on any of them."""
        opened = [sock for sock in self._opened if sock.fileno() >= 0]
        if any(self._is_used(sock) for sock in opened):
            return []
        return sorted({sock.getsockname()[1] for sock in opened})

    def keep(self, sockets: list[socket.socket], proxy_id: int, port: int) -> None:
        """A proxy listens: have those that are its own outlive this process."""
        for sock in sockets:
            self._kept.keep(_owner(proxy_id), sock.getsockname()[0], port, sock)

    def drop(self, proxy_id: int, host: str | None, port: int) -> None:
        """The proxy listens no more."""
        for text in egress.hosts(host):
            self._kept.drop(_owner(proxy_id), text, port)


def _is_copy(sock: socket.socket, listener: socket.socket) -> bool:
    """Whether it is an open copy; the data plane's thread may just close it."""
    try:
        return os.path.sameopenfile(sock.fileno(), listener.fileno())
    except OSError:
        return False


def _owner(proxy_id: int) -> str:
    return f"egress-{proxy_id}"
