"""A connected socket as a tunnel's pipe."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable

from .plane import Plane
from .socketend import reset_when_closed

# Of what waits in the kernel only so much is unsent: a short message waits behind no more (findings).
_NOT_SENT_BYTES = 128 * 1024


class SocketPipe:
    """Owns a connected, non-blocking stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._plane: Plane | None = None
        self.send = sock.send
        self.recv_into = sock.recv_into
        # Not TCP in a test, or another system: slower then, and no worse.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOT_SENT_BYTES)

    def watch(self, plane: Plane, handler: Callable[[int], None]) -> None:
        """Call ``handler`` with epoll's events, as edges. Raises OSError for a socket that is closed."""
        if self._sock.fileno() < 0:
            raise OSError(errno.EBADF, "the socket is closed")
        plane.watch(self._sock, handler)
        self._plane = plane

    def close(self) -> None:
        """Stop watching and close; data that the kernel has is still sent."""
        if self._plane is not None:
            self._plane.forget(self._sock)
            self._plane = None
        self._sock.close()

    def abort(self) -> None:
        """Close with a reset, and leave no state: its ports can be used for a new connection at once."""
        with contextlib.suppress(OSError):
            reset_when_closed(self._sock)
        self.close()
