"""Egress listeners that outlive a restart, or were opened for hived by the service manager."""

from __future__ import annotations

import contextlib
import socket

from ..errors import HiveError
from ..transport.listeners import Kept
from . import egress

OWNER = "egress"
"""Of the listeners here, among those that are kept."""


class Listeners:
    """The listeners of egress proxies, by the proxy's address (None: all) and port."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        # Not ours to keep or to drop: a socket unit's.
        self._given: set[tuple[str | None, int]] = set()

    def before(self, host: str | None, port: int) -> list[socket.socket]:
        """The listeners of a proxy that runs anew, still listening; none for one that is new."""
        found: list[socket.socket] = []
        missing: list[str] = []
        for text in egress.hosts(host):
            sock = self._kept.take(OWNER, text, port)
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
        if found:
            self._given.add((host, port))
        return found

    def keep(self, sockets: list[socket.socket], host: str | None, port: int) -> None:
        """Have a proxy's listeners outlive this process."""
        if (host, port) not in self._given:
            for sock in sockets:
                self._kept.keep(OWNER, sock.getsockname()[0], port, sock)

    def drop(self, host: str | None, port: int) -> None:
        """The proxy listens no more."""
        if (host, port) in self._given:
            self._given.discard((host, port))
        else:
            for text in egress.hosts(host):
                self._kept.drop(OWNER, text, port)
