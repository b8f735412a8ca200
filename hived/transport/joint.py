"""Streams of trio's side handed to the data plane: joined to a socket, or to each other.

A proxy's connections never come to trio at all; this is for what begins there: a TLS or SSH session
over one end of a socket pair, a circuit whose two halves a relay has agreed on.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from .muxstream import MuxedStream
from .plane import Plane
from .socketend import SocketEnd, Traffic, abort
from .splice import splice
from .stream import Stream


@dataclass(eq=False)
class Joint:
    """A join that the data plane runs.

    ``bytes_out``: from the socket, or the first stream; ``bytes_in``: to it.
    """

    plane: Plane
    bytes_in: int = 0
    bytes_out: int = 0
    why: str | None = None
    ended: trio.Event = field(default_factory=trio.Event)
    _cut: Callable[[], None] = field(default=lambda: None)
    _over: bool = False

    async def wait(self) -> None:
        """Wait until both directions have ended; cancelled, both sides are reset.

        Raises BrokenResourceError when it did not end in order.
        """
        try:
            await self.ended.wait()
        finally:
            if not self.ended.is_set():
                self.plane.call(self.cut)
        if self.why is not None:
            raise trio.BrokenResourceError(self.why)

    # On the data plane's thread

    def cut(self) -> None:
        """Reset both sides."""
        if not self._over:
            self._cut()

    def end(self, why: str | None) -> None:
        if not self._over:
            self._over = True
            self.plane.tell(self._end, why)

    def _end(self, why: str | None) -> None:
        self.why = why
        self.ended.set()


class _JointEnd(SocketEnd):
    __slots__ = ("_joint",)

    def __init__(self, joint: Joint, stream: Stream, sock: socket.socket) -> None:
        super().__init__(joint.plane, stream, sock, joint)
        self._joint = joint

    def ended(self, why: str | None) -> None:
        self._joint.end(why)


def join_socket(plane: Plane, stream: MuxedStream, sock: socket.socket) -> Joint:
    """Join a stream and a connected socket, both of which the data plane owns from now on.

    Raises what ``MuxedStream.detach`` does; the socket is the caller's then.
    """
    joint = Joint(plane)
    sock.setblocking(False)
    left = stream.detach()

    def begin() -> None:
        found = _taken(stream, left)
        if found is None:
            abort(sock)
            joint.end("the stream has ended")
            return
        end = _JointEnd(joint, found, sock)
        joint._cut = end.cut
        end.start()

    plane.call(begin)
    return joint


class _Metered:
    """A joint's traffic, which is cut once more than ``limit`` bytes have passed both ways together."""

    def __init__(self, joint: Joint, limit: int) -> None:
        self._joint = joint
        self._limit = limit

    @property
    def bytes_out(self) -> int:
        return self._joint.bytes_out

    @bytes_out.setter
    def bytes_out(self, value: int) -> None:
        self._joint.bytes_out = value
        self._check()

    @property
    def bytes_in(self) -> int:
        return self._joint.bytes_in

    @bytes_in.setter
    def bytes_in(self, value: int) -> None:
        self._joint.bytes_in = value
        self._check()

    def _check(self) -> None:
        if self._joint.bytes_in + self._joint.bytes_out > self._limit:
            # Not now: a record is being made of one of the streams.
            self._joint.plane.soon(self._joint.cut)


def join_streams(plane: Plane, one: MuxedStream, other: MuxedStream, limit: int | None = None) -> Joint:
    """Join two streams, of two connections or of one; cut once more than ``limit`` bytes have passed.

    Raises what ``MuxedStream.detach`` does; where it is ``other`` that cannot be joined, ``one`` is reset.
    """
    joint = Joint(plane)
    traffic: Traffic = joint if limit is None else _Metered(joint, limit)
    reverse = _Reverse(traffic)
    left = one.detach()
    try:
        lefts = left, other.detach()
    except BaseException:
        # Nobody else can end it now.
        plane.call(one.mailbox.reset)
        raise

    def begin() -> None:
        found = _taken(one, lefts[0]), _taken(other, lefts[1])
        first, second = found
        if first is None or second is None:
            for stream in found:
                if stream is not None:
                    stream.reset()
            joint.end("a stream has ended")
            return

        def cut() -> None:
            first.reset()
            second.reset()
            joint.end("cut")

        joint._cut = cut
        splice(second, first, traffic, reverse, joint.end)

    plane.call(begin)
    return joint


class _Reverse:
    """A joint's traffic, seen from the other side."""

    def __init__(self, joint: Traffic) -> None:
        self._joint = joint

    @property
    def bytes_out(self) -> int:
        return self._joint.bytes_in

    @bytes_out.setter
    def bytes_out(self, value: int) -> None:
        self._joint.bytes_in = value

    @property
    def bytes_in(self) -> int:
        return self._joint.bytes_out

    @bytes_in.setter
    def bytes_in(self, value: int) -> None:
        self._joint.bytes_out = value


def _taken(stream: MuxedStream, left: tuple[int, bytes]) -> Stream | None:
    """The stream behind a face that let go of it; None when it has ended meanwhile."""
    found = stream.mailbox.stream
    if found is None:
        return None
    if found.dead:
        found.discard()
        return None
    found.end = None
    found.head = stream.mailbox.take_over(*left)
    return found
