"""A local TCP connection as the end of a stream: the two are joined until both directions have ended.

Half-close passes through each way; a reset of either side becomes a reset of the other;
a byte is read only when the other side takes it (back-pressure); idle is no error.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final, Protocol

from .plane import ERR, HUP, IN, OUT, RDHUP, Plane
from .stream import EOF, Stream

# Why it broke, when the local side did it.
LOCAL_RESET: Final = "the connection was reset"
_LINGER_NONE: Final = struct.pack("ii", 1, 0)
_LINGER_OFF: Final = struct.pack("ii", 0, 0)


class Traffic(Protocol):
    """Bytes from local to the stream (out) and back (in); counted on the data plane's thread."""

    bytes_in: int
    bytes_out: int


def reset_when_closed(sock: socket.socket) -> None:
    """Let the end of a TCP connection be a reset for its peer, not an orderly one, until ``close_in_order``.

    Also when this process is killed: half of a file must not look like all of it. What a listener accepts
    has it from the listener.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)


def close_in_order(sock: socket.socket) -> None:
    """Close a connection of which both directions have ended; what the kernel holds is still delivered."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
    sock.close()


def abort(sock: socket.socket) -> None:
    """Close a TCP connection so that its peer sees a reset."""
    with contextlib.suppress(OSError):
        reset_when_closed(sock)
    sock.close()


class SocketEnd:
    """Owns a non-blocking socket. ``ended`` is called once. All methods: the data plane's thread."""

    __slots__ = ("_eof", "_hung_up", "_shut", "closed", "plane", "readable", "sock", "stream", "traffic")

    def __init__(
        self,
        plane: Plane,
        stream: Stream | None,
        sock: socket.socket,
        traffic: Traffic,
    ) -> None:
        self.stream = stream
        self.sock = sock
        self.traffic = traffic
        # Whether there is something to read is found by reading: edges tell of what comes later.
        self.readable = True
        self.closed = False
        self.plane = plane
        self._eof = self._hung_up = self._shut = False

    def ended(self, why: str | None) -> None:
        """Both directions have ended and the socket is closed; ``why`` when that was no orderly end."""

    def start(self, *, watched: bool = False) -> None:
        """Watch the socket, unless it is ``watched`` already, and attach to the stream."""
        assert self.stream is not None
        (self.plane.rewatch if watched else self.plane.watch)(self.sock, self.event)
        self.stream.attach(self)

    def cut(self, why: str | None = "cut") -> None:
        """End both sides with a reset."""
        if self.closed:
            return
        self._close(abort)
        if self.stream is not None:
            self.stream.reset()
        self.ended(why)

    def crashed(self) -> None:
        """A defect of ours has shown in the handling of this connection."""
        self.cut("internal error")

    def _close(self, close: Callable[[socket.socket], None]) -> None:
        self.closed = True
        self.readable = False
        self.plane.forget(self.sock)
        close(self.sock)

    def _maybe_done(self) -> None:
        if self._eof and self._shut and not self.closed:
            self._close(close_in_order)
            self.ended(None)

    # From the loop

    def event(self, events: int) -> None:
        """The socket has changed."""
        if events & ERR:
            self.cut(LOCAL_RESET)
            return
        stream = self.stream
        assert stream is not None
        if events & OUT and stream.inbox.queue.size:
            stream.drain()
        if events & (IN | RDHUP | HUP) and not self._eof and not self.closed:
            if events & (RDHUP | HUP):
                # No further edge will tell of the end.
                self._hung_up = True
            self.readable = True
            stream.ready_now()

    # From the stream

    def deliver(self, data: memoryview) -> int:
        try:
            size = self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.cut(LOCAL_RESET)
            return 0
        self.traffic.bytes_in += size
        return size

    def pull(self, space: memoryview) -> int:
        if self.closed:
            # The socket may be somebody else's by now.
            return 0
        try:
            size = self.sock.recv_into(space)
        except BlockingIOError:
            self.readable = False
            return 0
        except OSError:
            self.cut(LOCAL_RESET)
            return 0
        if size == 0:
            self._eof = True
            self._maybe_done()
            return EOF
        if size < len(space) and not self._hung_up:
            self.readable = False
        self.traffic.bytes_out += size
        return size

    def finished(self) -> None:
        self._shut = True
        if not self._eof:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
        self._maybe_done()

    def broken(self, why: str, *, received: bool) -> None:
        if not self.closed:
            self._close(abort)
            if self.stream is not None:
                self.stream.discard()
            self.ended(why)
