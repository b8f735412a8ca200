"""Egress listeners that outlive a restart, or were opened for hived by the service manager."""

from __future__ import annotations

import contextlib
import socket

from ..errors import HiveError
from ..transport.listeners import Kept
from ..transport.socketend import abort
from . import egress

# More than a socket unit's backlog.
_MOST_WAITING = 4096


class Listeners:
    """The listeners of egress proxies, by the proxy's ID, address (None: all) and port: none is another's."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        # Not ours to keep or to drop: a socket unit's.
        self._given: set[tuple[str | None, int]] = set()

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
        """Listeners that a socket unit opened for hived."""
        found = self._kept.given(host, port)
        for sock in found:
            egress.prepare(sock)
            _turn_away(sock)
        if found:
            self._given.add((host, port))
        return found

    def keep(self, sockets: list[socket.socket], proxy_id: int, host: str | None, port: int) -> None:
        """Have a proxy's listeners outlive this process."""
        if (host, port) not in self._given:
            for sock in sockets:
                self._kept.keep(_owner(proxy_id), sock.getsockname()[0], port, sock)

    def drop(self, proxy_id: int, host: str | None, port: int) -> None:
        """The proxy listens no more."""
        if (host, port) in self._given:
            self._given.discard((host, port))
        else:
            for text in egress.hosts(host):
                self._kept.drop(_owner(proxy_id), text, port)


def _owner(proxy_id: int) -> str:
    return f"egress-{proxy_id}"


def _turn_away(listener: socket.socket) -> None:
    """Who came while no proxy listened here did not mean the one that does now."""
    with contextlib.suppress(OSError):
        for _ in range(_MOST_WAITING):
            abort(listener.accept()[0])
