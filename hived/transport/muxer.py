"""The stream multiplexer: one secured yamux connection (/yamux/1.0.0), as trio's tasks see it.

py-libp2p's own yamux resets streams whose window is empty for 5 s, ends the connection when
a write is cancelled, and loses data on close (findings/py-libp2p.md, rows 1, 2, 5); hence this one. The
connection itself lives on the data plane's thread (``tunnel``); here is what crosses to it.
"""

from __future__ import annotations

import time
from collections import deque

import trio

from .frames import NORMAL
from .greeting import Greeter, Greeting
from .limits import MuxLimits
from .muxstream import MuxedStream
from .plane import Plane
from .records import Opener, Sealer
from .session import NoStreamsError
from .stream import Stream
from .tunnel import Pipe, Tunnel

_DEFAULT_LIMITS = MuxLimits()
_CANCEL_SECONDS = 1.0


class Muxer:
    """One connection. Nothing moves until ``run`` does; ``open`` may be called before.

    ``closed`` is set when the connection is over and its pipe closed; ``close_reason`` then says why,
    for people ("" before). ``plain``: opened bytes that came behind the handshake.
    ``greeter``, when set, sees the first bytes of each incoming stream on the data plane's thread, and may
    keep it (see Greeter); what it does not keep comes to ``accept`` as if nothing had been looked at.
    """

    def __init__(
        self,
        plane: Plane,
        pipe: Pipe,
        sealer: Sealer,
        opener: Opener,
        *,
        initiator: bool,
        limits: MuxLimits = _DEFAULT_LIMITS,
        plain: bytes = b"",
    ) -> None:
        self.closed = trio.Event()
        self.close_reason = ""
        self.greeter: Greeter | None = None
        self.tunnel = Tunnel(
            plane, pipe, sealer, opener, initiator=initiator, limits=limits, owner=_Owner(plane, self)
        )
        self._plane = plane
        self._plain = plain
        self._limits = limits
        self._incoming: deque[MuxedStream] = deque()
        self._acceptors = trio.lowlevel.ParkingLot()
        self._running = False
        self._ending = False
        self._closed_here = False
        self._cancelled = False

    @property
    def rtt(self) -> float | None:
        """Seconds from a ping to its answer, both in front of any data that waits; None before the first."""
        return self.tunnel.session.rtt

    @property
    def age(self) -> float:
        """Seconds since bytes last came."""
        return time.monotonic() - self.tunnel.last_received

    @property
    def silent(self) -> float | None:
        """``age`` where the peer owes an answer to a ping and is quieter than a live one; else None."""
        session, age = self.tunnel.session, self.age
        return age if age > session.limits.keep_alive and not session.ping_answered else None

    @property
    def lost(self) -> bool:
        """It has ended, and neither side had announced that."""
        return self.tunnel.lost and not (self._cancelled or self._closed_here)

    @property
    def given_up(self) -> bool:
        """Whether it ended because nobody answered: the other side is gone, or the way to it."""
        return self.tunnel.given_up

    @property
    def bytes_in(self) -> int:
        """What has passed the pipe, headers included."""
        return self.tunnel.bytes_in

    @property
    def bytes_out(self) -> int:
        """What has passed the pipe, headers included."""
        return self.tunnel.bytes_out

    @property
    def stream_count(self) -> int:
        """Streams that are open in at least one direction, those not yet accepted included."""
        return len(self.tunnel.session.streams)

    @property
    def draining(self) -> bool:
        """No more streams are taken; those that live go on."""
        return self.tunnel.session.draining

    def set_limits(self, limits: MuxLimits) -> None:
        """Other bounds for streams and windows from now on: a peer has proved what it is."""
        self.tunnel.session.limits = limits

    def probe(self, seconds: float) -> None:
        """Ask whether the peer still lives; the connection ends when it is not heard within ``seconds``."""
        self._plane.call(self.tunnel.probe, seconds)

    # Streams

    async def open(self) -> MuxedStream:
        """A new stream, usable at once; the peer may still refuse it by a reset.

        Waits while the peer has 256 streams of ours to acknowledge. Raises ClosedResourceError after
        ``aclose``, BrokenResourceError when the connection is lost or the peer is going away.
        """
        await trio.lowlevel.checkpoint()
        self._check_open()
        opening = _Opening(self._plane, self.tunnel)
        self._plane.call(opening.begin)
        try:
            await opening.done.wait()
        except trio.Cancelled:
            self._plane.call(opening.give_up)
            raise
        if opening.why is not None:
            self._check_open()
            raise trio.BrokenResourceError(opening.why)
        return opening.face

    async def accept(self) -> MuxedStream:
        """The next stream that the peer opened; it is acknowledged now, which is the peer's back-pressure.

        Raises when the connection is over: ClosedResourceError after ``aclose``, else EndOfChannel.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self.closed.is_set():
                if self._closed_here:
                    raise trio.ClosedResourceError("the connection is closed")
                raise trio.EndOfChannel(self.close_reason)
            while self._incoming:
                stream = self._incoming.popleft()
                self._plane.call(_accept, stream)
                if not stream.was_reset:
                    return stream
                stream.reset()
            await self._acceptors.park()

    def _check_open(self) -> None:
        if self._closed_here:
            raise trio.ClosedResourceError("the connection is closed")
        if self._ending:
            raise trio.BrokenResourceError(self.close_reason)

    # Life

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let bytes move until the connection ends, its pipe is closed and ``closed`` is set.

        Never raises for what the network or the peer does. Cancelled, it closes without GoAway.
        """
        assert not self._running, "a muxer runs once"
        self._running = True
        self._plane.call(self.tunnel.start, self._plain)
        self._plain = b""
        try:
            task_status.started()
            await self.closed.wait()
        finally:
            if not self.closed.is_set():
                self._cancelled = True
                self._plane.call(self.tunnel.end, "cancelled", None)
                # The data plane waits for nobody; the bound is for one that has ended.
                with trio.move_on_after(_CANCEL_SECONDS, shield=True):
                    await self.closed.wait()
                self.on_ended("cancelled")

    async def aclose(self) -> None:
        """Send what is queued and GoAway, and close the pipe; takes a second at the very most.

        Open streams end at once with BrokenResourceError. Never raises but trio.Cancelled, and
        closes then too.
        """
        if not self._ending:
            self._closed_here = self._ending = True
            self._plane.call(self.tunnel.end, "closed here", NORMAL)
        try:
            await self.closed.wait()
        except trio.Cancelled:
            self._plane.call(self.tunnel.end_now)
            raise

    # From the data plane

    def on_incoming(self, stream: MuxedStream) -> None:
        """The peer has opened a stream."""
        if self.closed.is_set():
            stream.reset()
            return
        self._incoming.append(stream)
        self._acceptors.unpark()

    def on_ended(self, why: str) -> None:
        """The connection is over."""
        if self.closed.is_set():
            return
        self._ending = True
        self.close_reason = why
        while self._incoming:
            self._incoming.popleft().reset()
        self.closed.set()
        self._acceptors.unpark_all()


class _Opening:
    """A wait for a new stream, on both sides."""

    def __init__(self, plane: Plane, tunnel: Tunnel) -> None:
        self.done = trio.Event()
        self.why: str | None = None
        self.face = MuxedStream(plane)
        self._plane = plane
        self._tunnel = tunnel
        self._given_up = False

    def begin(self) -> None:
        """On the data plane's thread."""
        self._tunnel.session.when_openable(self._open)

    def give_up(self) -> None:
        """On the data plane's thread."""
        self._given_up = True
        self._tunnel.session.give_up_opening(self._open)
        self.face.mailbox.reset()

    def _open(self) -> None:
        if self._given_up:
            return
        try:
            stream = self._tunnel.session.open()
        except NoStreamsError as error:
            self._plane.tell(self._failed, self._tunnel.close_reason or str(error))
        else:
            mailbox = self.face.mailbox
            mailbox.stream = stream
            stream.attach(mailbox)
            self._plane.tell(self._opened, stream.id)

    def _opened(self, stream_id: int) -> None:
        self.face.id = stream_id
        self.done.set()

    def _failed(self, why: str) -> None:
        self.why = why
        self.done.set()


class _Owner:
    """A tunnel's owner on the data plane's thread: what concerns trio crosses to the muxer."""

    def __init__(self, plane: Plane, muxer: Muxer) -> None:
        self._plane = plane
        self._muxer = muxer
        self.undecided = False
        self._greetings: list[Greeting] = []

    def incoming(self, stream: Stream) -> None:
        if self._muxer.greeter is None:
            self._to_trio(stream)
        else:
            greeting = Greeting(stream, self._muxer.greeter, self._to_trio)
            stream.end = greeting
            self._greetings.append(greeting)
            self.undecided = True

    def received(self) -> None:
        # Who opens a stream in the fast way sends the first bytes with it; the rest is for trio.
        self.undecided = False
        greetings, self._greetings = self._greetings, []
        for greeting in greetings:
            greeting.give_up()

    def ended(self, why: str) -> None:
        self._plane.tell(self._muxer.on_ended, why)

    def _to_trio(self, stream: Stream) -> None:
        face = MuxedStream(self._plane)
        face.id = stream.id
        face.mailbox.stream = stream
        stream.attach(face.mailbox)
        self._plane.tell(self._muxer.on_incoming, face)


def _accept(stream: MuxedStream) -> None:
    of_connection = stream.mailbox.stream
    if of_connection is not None:
        of_connection.session.accept(of_connection)
