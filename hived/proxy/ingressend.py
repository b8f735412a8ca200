"""One connection of an ingress proxy on the data plane's thread: a stream, and the way to its target."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

from ..transport.plane import ERR, HUP, OUT, Plane, Timer
from ..transport.socketend import SocketEnd, abort, reset_when_closed
from ..transport.stream import EOF, Stream
from .counters import Counters
from .header import Verdict

CONNECT_SECONDS: Final = 10.0
REFUSE_SECONDS: Final = 10.0
LOOPBACK: Final = ("127.0.0.1", "::1")

Address = tuple[str, int]


@functools.cache
def ephemeral_ports() -> range:
    """The ports from which the kernel dials (ip(7), ip_local_port_range)."""
    try:
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except (OSError, ValueError):
        return range(1, 65536)
    return range(first, last + 1)


class Dialing:
    """The end of a stream while its target is dialled: the first of ``addresses`` that answers.

    ``done`` is called with the socket, or with None and why there is none; not after ``cut``. Its last
    argument are the events that were told of a socket that is watched, 0 for one that is not.
    """

    readable = False

    def __init__(
        self,
        plane: Plane,
        stream: Stream,
        addresses: Iterable[Address],
        done: Callable[[Dialing, socket.socket | None, str, int], None],
    ) -> None:
        self.stream = stream
        self._plane = plane
        self._addresses = iter(addresses)
        self._done = done
        self._sock: socket.socket | None = None
        self._port = 0
        self._why = ""
        self._timer: Timer | None = None

    def start(self) -> None:
        """Dial."""
        self.stream.end = self
        self._next()

    def crashed(self) -> None:
        """A defect of ours has shown in the handling of this connection."""
        self.stream.reset()
        self._finish(None, "internal error")

    def cut(self) -> None:
        """Stop, and reset the stream."""
        self._clear()
        self.stream.reset()

    def _next(self) -> None:
        for address in self._addresses:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            try:
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            except OSError as error:
                self._failed(error.errno)
                continue
            try:
                number = sock.connect_ex(address)
                if number == errno.EINPROGRESS and address[0] in LOOPBACK:
                    # It is over by now, and asking costs less than being told.
                    number = sock.connect_ex(address)
            except OSError:
                # An address with the name of an interface that is not there.
                number = errno.EADDRNOTAVAIL
            self._port = address[1]
            if number == 0 and self._is_own(sock):
                number = errno.ECONNREFUSED
            if number == 0:
                self._finish(sock, "")
                return
            if number in (errno.EINPROGRESS, errno.EALREADY):
                self._sock = sock
                self._plane.watch(sock, self._event)
                if self._timer is None:
                    self._timer = self._plane.after(CONNECT_SECONDS, partial(self._finish, None, "no answer"))
                return
            self._failed(number)
            sock.close()
        self._finish(None, self._why or "no address")

    def _failed(self, number: int | None) -> None:
        # The first reason counts: that there is no ::1 is no news.
        self._why = self._why or os.strerror(number or 0).lower()

    def _event(self, events: int) -> None:
        sock = self._sock
        if sock is None:
            return
        if events & (ERR | HUP):
            self._failed(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            self._drop()
            self._next()
        elif events & OUT and self._is_own(sock):
            self._failed(errno.ECONNREFUSED)
            self._drop()
            self._next()
        elif events & OUT:
            self._sock = None
            self._finish(sock, "", events)

    def _is_own(self, sock: socket.socket) -> bool:
        """Connected to itself: where nobody listens, the kernel may have chosen the port that was dialled."""
        if self._port not in ephemeral_ports():
            return False
        try:
            return bool(sock.getsockname() == sock.getpeername())
        except OSError:
            # Reset since it was connected: whoever reads it hears of that.
            return False

    def _finish(self, sock: socket.socket | None, why: str, events: int = 0) -> None:
        self._clear()
        self._done(self, sock, why, events)

    def _drop(self) -> None:
        if self._sock is not None:
            self._plane.forget(self._sock)
            abort(self._sock)
            self._sock = None

    def _clear(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._drop()

    # From the stream

    def deliver(self, data: memoryview) -> int:
        return 0

    def pull(self, space: memoryview) -> int:
        return 0

    def finished(self) -> None:
        """The target hears of it once it is there."""

    def broken(self, why: str, *, received: bool) -> None:
        self.stream.discard()
        self._finish(None, why)


class IngressEnd(SocketEnd):
    """A stream that is joined to its target. ``on_end`` is called once, with the end itself."""

    __slots__ = ("_on_end",)

    def __init__(
        self,
        plane: Plane,
        stream: Stream,
        sock: socket.socket,
        counters: Counters,
        on_end: Callable[[IngressEnd], None],
    ) -> None:
        super().__init__(plane, stream, sock, counters)
        self._on_end = on_end

    def ended(self, why: str | None) -> None:
        self._on_end(self)


class Refusal:
    """The end of a stream that is refused: says why, and waits for egress to have heard it."""

    readable = True

    def __init__(self, plane: Plane, stream: Stream, verdict: Verdict) -> None:
        self._stream = stream
        stream.head += bytes([verdict])
        # A reset of ours at once could overtake the verdict.
        self._timer = plane.after(REFUSE_SECONDS, stream.reset)

    def deliver(self, data: memoryview) -> int:
        return len(data)

    def pull(self, space: memoryview) -> int:
        return EOF

    def finished(self) -> None:
        self._timer.cancel()

    def broken(self, why: str, *, received: bool) -> None:
        self._stream.discard()
        self._timer.cancel()


def tune(sock: socket.socket) -> None:
    """No waiting for more: what a program writes goes out. And until both have ended, an end is a reset."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reset_when_closed(sock)
