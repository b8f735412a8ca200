"""A stream of one connection as the pipe of another: how a circuit through a relay is secured and muxed."""

from __future__ import annotations

import errno
from collections.abc import Callable

from .muxstream import MuxedStream
from .plane import ERR, HUP, IN, OUT, RDHUP, Plane
from .stream import EOF, Stream


class Carrier:
    """Takes a MuxedStream over, which is closed for trio from then on: both a pipe and the stream's end.

    Raises what ``MuxedStream.detach`` does. At most one record of the inner connection waits here.
    """

    def __init__(self, stream: MuxedStream) -> None:
        self._mailbox = stream.mailbox
        self._left = stream.detach()
        self._plane: Plane | None = None
        self._handler: Callable[[int], None] = _nobody
        self._stream: Stream | None = None
        self._out = memoryview(b"")
        self._error = ""
        self._closed = False
        self._told_of_data = False

    # The pipe of the inner connection

    def watch(self, plane: Plane, handler: Callable[[int], None]) -> None:
        """Begin. Raises OSError when the stream is gone."""
        stream = self._mailbox.stream
        if stream is None or stream.dead:
            if stream is not None:
                stream.discard()
            raise OSError(errno.EPIPE, "the stream that carries it has ended")
        self._plane, self._handler, self._stream = plane, handler, stream
        stream.head = self._mailbox.take_over(*self._left)
        stream.attach(self)
        plane.soon(handler, IN | OUT)

    def send(self, data: memoryview, /) -> int:
        if self._error or self._stream is None:
            raise OSError(errno.EPIPE, self._error or "not begun")
        if self._out:
            raise BlockingIOError
        self._out = memoryview(bytes(data))
        self._stream.ready()
        return len(data)

    def recv_into(self, buffer: memoryview, /) -> int:
        self._told_of_data = False
        if self._error or self._stream is None:
            raise OSError(errno.EPIPE, self._error or "not begun")
        size = self._stream.take_into(buffer)
        if size == 0 and not self._stream.got_fin:
            raise BlockingIOError
        return size

    def close(self) -> None:
        self._closed = True
        if self._stream is not None:
            self._stream.ready()
            self._stream.session.close(self._stream)
        else:
            # Not begun: trio has let go of it already, so nobody else can end it.
            self._mailbox.reset()

    def abort(self) -> None:
        """Nobody answers: the outer stream is reset."""
        self._closed = True
        if self._stream is not None:
            self._stream.session.reset(self._stream)
        else:
            self._mailbox.reset()

    # The end of the outer stream

    @property
    def readable(self) -> bool:
        return bool(self._out) or self._closed

    def deliver(self, data: memoryview) -> int:
        # Not handled at once: the buffer that it lies in is needed for that.
        self._tell(IN)
        return len(data) if self._closed else 0

    def pull(self, space: memoryview) -> int:
        size = min(len(self._out), len(space))
        if not size:
            return EOF if self._closed else 0
        space[:size] = self._out[:size]
        self._out = self._out[size:]
        if not self._out and self._plane is not None:
            self._plane.soon(self._handler, OUT)
        return size

    def finished(self) -> None:
        self._tell(IN | RDHUP)

    def broken(self, why: str, *, received: bool) -> None:
        self._error = why
        if self._stream is not None:
            self._stream.discard()
        self._tell(IN | ERR | HUP)

    def _tell(self, events: int) -> None:
        if self._plane is not None and not (self._told_of_data and events == IN) and not self._closed:
            self._told_of_data = True
            self._plane.soon(self._handler, events)


def _nobody(events: int) -> None:
    """Before it has begun."""
