"""Listeners that are not made anew at each start: kept over restarts, or opened by the service manager.

Whoever listens asks here before it binds. What keeps them is built by the daemon (system/sockets.py).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection
from typing import Protocol

_UNRESERVED_PORT = 1024


def is_reserved(port: int, error: OSError) -> bool:
    """Whether binding failed for a port below 1024, which only root may have (ip(7))."""
    return error.errno in (errno.EACCES, errno.EPERM) and 0 < port < _UNRESERVED_PORT


class Kept(Protocol):
    """``owner`` tells the listeners of the overlay from those of proxies; ``host`` is an IP address.

    A taken listener is kept on until it is dropped.
    """

    def take(self, owner: str, host: str, port: int) -> socket.socket | None:
        """The listener of before, still listening there; None for none."""

    def keep(self, owner: str, host: str, port: int, sock: socket.socket) -> None:
        """Have a new listener outlive this process, until it is dropped; one that was opened for us does."""

    def retain(self, owner: str, ends: Collection[tuple[str, int]]) -> None:
        """Drop the owner's listeners of before that are at none of these hosts and ports."""

    def drop(self, owner: str, host: str, port: int) -> None:
        """Nobody listens there any more, from now on."""

    def given(self, host: str | None, port: int) -> list[socket.socket]:
        """Listeners that were opened for hived, where it may not itself; ``host`` None: on all addresses."""

    def opened(self) -> list[socket.socket]:
        """All that were opened for hived."""


class NothingKept:
    """Where no service manager keeps anything."""

    def take(self, owner: str, host: str, port: int) -> socket.socket | None:
        return None

    def keep(self, owner: str, host: str, port: int, sock: socket.socket) -> None:
        pass

    def retain(self, owner: str, ends: Collection[tuple[str, int]]) -> None:
        pass

    def drop(self, owner: str, host: str, port: int) -> None:
        pass

    def given(self, host: str | None, port: int) -> list[socket.socket]:
        return []

    def opened(self) -> list[socket.socket]:
        return []
