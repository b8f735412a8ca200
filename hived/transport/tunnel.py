"""One secured yamux connection on the data plane's thread: from a pipe's bytes to streams and back.

Its life, and its turns in the plane's loop. ``reader`` receives, ``writer`` sends, ``session`` has the
protocol's state, and ``keepalive`` finds out that the other side is gone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final, Protocol

from .frames import NORMAL, PROTOCOL_ERROR, ProtocolError
from .keepalive import KeepAlive
from .limits import MuxLimits
from .mailbox import Mailbox
from .outbox import Outbox
from .plane import IN, OUT, Plane, Timer
from .reader import PipeError, Reader
from .records import BadRecordError, Opener, Sealer
from .session import PeerEndedError, Session
from .socketend import SocketEnd
from .stream import Stream
from .writer import Writer

# In one turn, before a deliberate end.
_FLUSH_PASSES: Final = 16


class Pipe(Protocol):
    """Ordered bytes both ways without waiting: a non-blocking socket, or a stream (``carrier``)."""

    def send(self, data: memoryview, /) -> int:
        """How many bytes it took. Raises BlockingIOError for none, OSError when it is broken."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """How many bytes came, 0 at the end. Raises as ``send``."""

    def watch(self, plane: Plane, handler: Callable[[int], None]) -> None:
        """Begin, and call ``handler`` with epoll's events, as edges. Raises OSError."""

    def close(self) -> None:
        """In order: what it has taken is still delivered."""

    def abort(self) -> None:
        """With a reset: nobody is there who would receive it."""


class Owner(Protocol):
    """Who is told of a tunnel's life, on the plane's thread.

    ``undecided``: streams have come of which it is not clear yet whose they are.
    """

    @property
    def undecided(self) -> bool: ...

    def incoming(self, stream: Stream) -> None:
        """The peer has opened a stream."""

    def received(self) -> None:
        """What has come together was handled."""

    def ended(self, why: str) -> None:
        """The connection is over and its pipe closed."""


class Tunnel:
    """``alive``: its end has not begun.

    ``expects_data``: whether the peer takes a stream's data before it has answered; None until it has.
    Once it has ended: ``lost``, neither side had announced that; ``given_up``, nobody answered; ``cut`` and
    ``cut_proxied``, how many streams lived then, and of those how many led to a socket.
    """

    def __init__(
        self,
        plane: Plane,
        pipe: Pipe,
        sealer: Sealer,
        opener: Opener,
        *,
        initiator: bool,
        limits: MuxLimits,
        owner: Owner,
    ) -> None:
        self.alive = True
        self.close_reason = ""
        self.expects_data: bool | None = None
        self.lost = self.given_up = False
        self.cut = self.cut_proxied = 0
        self.plane = plane
        self.outbox = Outbox(self._activate)
        self.session = Session(
            initiator=initiator,
            limits=limits,
            outbox=self.outbox,
            budget=plane.budget,
            on_incoming=owner.incoming,
        )
        self.reader = Reader(plane, pipe.recv_into, opener, self.session)
        self.writer = Writer(
            plane, pipe.send, sealer, self.outbox, self.session, self._activate, self._write_broke
        )
        self._keepalive = KeepAlive(plane, self, limits)
        self._owner = owner
        self._limits = limits
        self._pipe = pipe
        self._active = False
        self._started = False
        self._closed = False
        # Of its end.
        self._timer: Timer | None = None
        # A deliberate end waits for what is queued: why, when it must come, and whether it waits no more.
        self._ending = ""
        self._end_by = 0.0
        self._flushing = True
        # Why nothing more can be sent, while what has come is still read.
        self._write_error = ""

    @property
    def bytes_in(self) -> int:
        """Sealed bytes that have come."""
        return self.reader.bytes_in

    @property
    def bytes_out(self) -> int:
        """Sealed bytes that have gone, but for a part of one record."""
        return self.writer.bytes_out

    @property
    def last_received(self) -> float:
        """When bytes last came, by the monotonic clock."""
        return self.reader.last_received

    # What the owner does, on the plane's thread

    def start(self, plain: bytes = b"") -> None:
        """Begin. ``plain`` are opened bytes that came behind the handshake."""
        if plain:
            try:
                self.reader.handle_opened(plain)
            except (ProtocolError, PeerEndedError) as defect:
                self._failed(defect)
            self._check_drained()
        if self._closed:
            return
        try:
            self._pipe.watch(self.plane, self.event)
        except OSError as error:
            self._broke(error)
            return
        self._started = True
        self.session.send_now = self.writer.send_now
        if not self.outbox.empty:
            self._activate()
        if self.alive:
            self._keepalive.start()
        if self.reader.behind:
            self._activate()
        else:
            self._owner.received()

    def end(self, why: str, code: int | None) -> None:
        """The end begins; the first reason counts. ``code``: of the GoAway to send, None for none."""
        if not self.alive:
            return
        if code == NORMAL and not self._flushed(why):
            return
        self.alive = False
        self.reader.discard()
        self.writer.last_words = True
        self.close_reason = why = self._ending or why
        # Draining: by the peer's GoAway, or by an end that was to come here anyway.
        self.lost = code != NORMAL and not self.session.draining
        streams = self.session.streams
        self.cut = len(streams)
        self.cut_proxied = sum([isinstance(stream.end, SocketEnd) for stream in streams.values()])
        self.session.fail(why)
        self._stop_timers()
        if code is None or self._write_error or not self._started:
            self._close()
        else:
            # Closed when that is written.
            self.outbox.go_away(code, drop=code != NORMAL)
            timeout = self._end_by - time.monotonic() if self._end_by else self._limits.close_timeout
            self._timer = self.plane.after(timeout, self._close)

    def probe(self, seconds: float) -> None:
        """End soon where the peer is not heard within so many seconds."""
        self._keepalive.probe(seconds)

    def give_up(self, why: str) -> None:
        """Nobody answers. The system forgets it, too, so that the same two ports can be connected anew."""
        self.given_up = self.given_up or self.alive
        self.end(why, None)

    def end_now(self) -> None:
        """End without waiting for what is still to be written."""
        self.end("closed here", None)
        self._close()

    def crashed(self) -> None:
        """A defect of ours has shown in the handling of this connection."""
        try:
            self.end("internal error", None)
            # Those that the defect kept from being told.
            self.session.fail(self.close_reason)
        finally:
            self._close()

    def _flushed(self, why: str) -> bool:
        """Whether a deliberate end may come now; else it does once what trio's tasks have sent has left.

        Half of the time that ``close_timeout`` gives is for that. A joined socket may never come to its end,
        and is not waited for.
        """
        if self._write_error or not self._started:
            return True
        passes = _FLUSH_PASSES
        while self._flushing and self._words_wait():
            if not self.writer.free or not passes:
                self._end_later(why)
                if self.writer.free:
                    self._activate()
                return False
            passes -= 1
            self._write()
            if not self.alive:
                return False
        return True

    def _words_wait(self) -> bool:
        """Something of trio's tasks, or a stream's first bytes, is still to be sent."""
        outbox = self.outbox
        return any(
            stream.head or isinstance(stream.end, Mailbox)
            for waiting in (outbox.quick, outbox.bulk)
            for stream in waiting
        )

    def _end_later(self, why: str) -> None:
        if self._ending:
            return
        self._ending = why
        self._end_by = time.monotonic() + self._limits.close_timeout
        self._stop_timers()
        self._timer = self.plane.after(self._limits.close_timeout / 2, self._give_up_flushing)
        self.session.drain()

    def _give_up_flushing(self) -> None:
        self._flushing = False
        self.end(self._ending, NORMAL)

    def _stop_timers(self) -> None:
        self._keepalive.stop()
        if self._timer is not None:
            self._timer.cancel()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.alive = False
        self._stop_timers()
        self.reader.close()
        self.writer.stop()
        with contextlib.suppress(OSError):
            if self.given_up:
                self._pipe.abort()
            else:
                self._pipe.close()
        self._owner.ended(self.close_reason)

    # The loop

    def _activate(self) -> None:
        if not self._active:
            self._active = True
            self.plane.activate(self)

    def event(self, events: int) -> None:
        """The pipe has changed."""
        writer, reader = self.writer, self.reader
        if events & OUT and not writer.free:
            writer.send_left()
        if events & ~OUT:
            if reader.wants_turn:
                # It has its turn already, behind the others.
                reader.readable = True
                self._note_end(events)
                return
            reader.readable = True
            self._note_end(events)
            self._receive()
        elif writer.free:
            self._activate()

    def _note_end(self, events: int) -> None:
        if events & ~(OUT | IN):
            # No further edge will come: read to the end.
            self.reader.hung_up = True

    def turn(self) -> None:
        """One pass: receive, then send what may go."""
        self._active = False
        if self._closed or not self._started:
            # Streams may be opened before the pipe is.
            return
        if self.reader.wants_turn:
            self._receive()
        if self.writer.free and not self._closed:
            if self._ending and self.alive:
                self.end(self._ending, NORMAL)
            else:
                self._write()

    def _receive(self) -> None:
        reader = self.reader
        try:
            if not reader.read():
                self.end("the peer closed the connection", None)
                self._close()
                return
        except (PipeError, ProtocolError, PeerEndedError, BadRecordError) as defect:
            self._failed(defect)
        if self._closed:
            return
        if reader.wants_turn:
            self._activate()
        if self.session.draining:
            self._check_drained()
        if self._owner.undecided and not reader.behind:
            self._owner.received()

    def _write(self) -> None:
        if not self.writer.write():
            return
        if not self.alive:
            last = self.outbox.take_go_away()
            if last:
                self.writer.send_frames(last)
            if self.writer.free:
                self._close()
        elif self.session.finished:
            self.end("the peer went away", NORMAL)

    def _write_broke(self, error: OSError) -> None:
        """The pipe takes nothing more; what has come, and the peer's own word for the end, is still read."""
        self.writer.stop()
        if not self.alive:
            self._close()
        elif not self._write_error:
            self._write_error = f"the connection broke: {error.strerror or error}"
            self.reader.readable = self.reader.hung_up = True
            self._activate()
            self._stop_timers()
            self._timer = self.plane.after(self._limits.close_timeout, self._give_up_reading)

    def _give_up_reading(self) -> None:
        self.end(self._write_error, None)

    def _broke(self, error: OSError) -> None:
        self.end(f"the connection broke: {error.strerror or error}", None)

    def _failed(self, error: PipeError | ProtocolError | PeerEndedError | BadRecordError) -> None:
        if isinstance(error, ProtocolError):
            self.end(f"protocol error: {error}", PROTOCOL_ERROR)
        elif isinstance(error, BadRecordError):
            self.end(f"bad record: {error}", None)
        elif isinstance(error, PipeError):
            self.end(f"the connection broke: {error}", None)
        else:
            self.end(str(error), None)

    def _check_drained(self) -> None:
        if self.session.finished and not self._closed:
            self.end("the peer went away", NORMAL)
