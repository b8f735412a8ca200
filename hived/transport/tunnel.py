"""One secured yamux connection on the data plane's thread: from a pipe's bytes to streams and back.

Out: one read of a stream's end, one yamux frame, one AEAD call, one send; control frames go in
the room before the header. Nothing is read from an end unless the pipe can take it, and at most
one sealed record waits, partly sent.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable
from typing import Final, Protocol

from .frames import (
    DATA,
    HEADER_BYTES,
    NORMAL,
    PROTOCOL_ERROR,
    SYN,
    Decoder,
    ProtocolError,
)
from .limits import MuxLimits
from .mailbox import Mailbox
from .outbox import SHORT_BYTES, Outbox
from .plane import HEAD_BYTES, IN, OUT, RECEIVE_BYTES, Plane, Timer
from .records import BadRecordError, Opener, Sealer
from .session import PeerEndedError, Session
from .socketend import SocketEnd
from .stream import EOF, Stream

_HEADER: Final = struct.Struct("!BBHII")
# Control frames that go with one record of data; more of them go before it.
_CONTROL_BYTES: Final = 1024
_SHORT_START: Final = HEAD_BYTES - HEADER_BYTES
# In one turn, before a deliberate end.
_FLUSH_PASSES: Final = 16
# A timer that fires so late was held up together with this whole process.
_STOPPED_SECONDS: Final = 1.0


class Pipe(Protocol):
    """Ordered bytes both ways without waiting: a non-blocking socket, or a stream (``carrier``)."""

    def send(self, data: memoryview, /) -> int:
        """How many bytes it took. Raises BlockingIOError for none, OSError when it is broken."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """How many bytes came, 0 at the end. Raises as ``send``."""

    def watch(self, plane: Plane, handler: Callable[[int], None]) -> None:
        """Begin, and call ``handler`` with epoll's events, as edges. Raises OSError."""

    def close(self) -> None: ...


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
    """``last_received``: when bytes last came, by the monotonic clock. ``alive``: its end has not begun.

    ``expects_data``: whether the peer takes a stream's data before it has answered; None until it has.
    Once it has ended: ``lost``, neither side had announced that; ``cut`` and ``cut_proxied``, how many
    streams lived then, and of those how many led to a socket.
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
        self.lost = False
        self.cut = self.cut_proxied = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.last_received = time.monotonic()
        self.plane = plane
        self.outbox = Outbox(self._activate)
        self.session = Session(
            initiator=initiator,
            limits=limits,
            outbox=self.outbox,
            budget=plane.budget,
            on_incoming=owner.incoming,
        )
        self.session.send_now = self._send_now
        self._owner = owner
        self._limits = limits
        self._pipe = pipe
        self._send = pipe.send
        self._recv_into = pipe.recv_into
        self._seal = sealer.seal
        self._opener = opener
        self._decoder = Decoder(limits.max_frame)
        self._active = False
        self._readable = False
        self._hung_up = False
        self._closed = False
        self._left: memoryview | None = None
        # Part of a record, in a borrowed buffer, from _low to _high.
        self._buffer: memoryview | None = None
        self._low = self._high = 0
        self._max_plain = sealer.max_plain
        self._payload_room = sealer.max_plain - HEADER_BYTES
        self._stage = plane.stage
        self._slot = self._stage[HEAD_BYTES : HEAD_BYTES + self._payload_room]
        self._short = self._slot[:SHORT_BYTES]
        self._out = plane.out
        self._timer: Timer | None = None
        self._due = self._pinged_at = self._patient_until = 0.0
        self._heard = 0
        # A deliberate end waits for what is queued: why, when it must come, and whether it waits no more.
        self._ending = ""
        self._end_by = 0.0
        self._flushing = True

    # What the owner does, on the plane's thread

    def start(self, plain: bytes = b"") -> None:
        """Begin. ``plain`` are opened bytes that came behind the handshake."""
        if plain:
            try:
                self._frames(memoryview(plain))
            except (ProtocolError, PeerEndedError) as defect:
                self._failed(defect)
            self._check_drained()
        if self._closed:
            return
        try:
            self._pipe.watch(self.plane, self.event)
        except OSError as error:
            self.end(f"the connection broke: {error}", None)
            return
        if self.alive:
            self._ping()
        self._owner.received()

    def end(self, why: str, code: int | None) -> None:
        """The end begins; the first reason counts. ``code``: of the GoAway to send, None for none."""
        if not self.alive:
            return
        if code == NORMAL and not self._flushed(why):
            return
        self.alive = False
        self.close_reason = why = self._ending or why
        # Draining: by the peer's GoAway, or by an end that was to come here anyway.
        self.lost = code != NORMAL and not self.session.draining
        streams = self.session.streams
        self.cut = len(streams)
        self.cut_proxied = sum([isinstance(stream.end, SocketEnd) for stream in streams.values()])
        self.session.fail(why)
        if self._timer is not None:
            self._timer.cancel()
        if code is None:
            self._close()
        else:
            # Closed when that is written.
            self.outbox.go_away(code, drop=code != NORMAL)
            timeout = self._end_by - time.monotonic() if self._end_by else self._limits.close_timeout
            self._timer = self.plane.after(timeout, self._close)

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
        passes = _FLUSH_PASSES
        while self._flushing and self._words_wait():
            if self._left is not None or not passes:
                self._end_later(why)
                if self._left is None:
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
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.plane.after(self._limits.close_timeout / 2, self._give_up_flushing)
        self.session.drain()

    def _give_up_flushing(self) -> None:
        self._flushing = False
        self.end(self._ending, NORMAL)

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.alive = False
        if self._timer is not None:
            self._timer.cancel()
        if self._buffer is not None:
            self.plane.give_back(self._buffer)
            self._buffer = None
        self._left = None
        with contextlib.suppress(OSError):
            self._pipe.close()
        self._owner.ended(self.close_reason)

    # The loop

    def _activate(self) -> None:
        if not self._active:
            self._active = True
            self.plane.activate(self)

    def event(self, events: int) -> None:
        """The pipe has changed."""
        if events & OUT and self._left is not None:
            self._send_left()
        if events & ~OUT:
            self._readable = True
            if events & ~(OUT | IN):
                # No further edge will come: read to the end.
                self._hung_up = True
            self._receive()
        elif self._left is None:
            self._activate()

    def turn(self) -> None:
        """One pass: receive, then send what may go."""
        self._active = False
        if self._closed:
            return
        if self._readable:
            self._receive()
        if self._left is None and not self._closed:
            if self._ending and self.alive:
                self.end(self._ending, NORMAL)
            else:
                self._write()

    # Receiving

    def _receive(self) -> None:
        """One read, and the records that it completes."""
        buffer = self._buffer
        high = self._high
        try:
            size = self._recv_into(self.plane.scratch if buffer is None else buffer[high:])
        except BlockingIOError:
            self._readable = False
            return
        except OSError as error:
            self.end(f"the connection broke: {error.strerror or error}", None)
            return
        if size == 0:
            self.end("the peer closed the connection", None)
            self._close()
            return
        high += size
        # A full buffer means that there may be more, of which no new edge would tell.
        if high < RECEIVE_BYTES and not self._hung_up:
            self._readable = False
        else:
            self._activate()
        self.bytes_in += size
        self.last_received = time.monotonic()
        if not self.alive:
            # Read only to be discarded: a TCP connection closed on unread data is reset, our GoAway with it.
            self._low = self._high = 0
            return
        try:
            self._records(self.plane.scratch if buffer is None else buffer, high)
        except (ProtocolError, PeerEndedError, BadRecordError) as defect:
            self._failed(defect)
        if self.session.draining:
            self._check_drained()
        if self._owner.undecided:
            self._owner.received()

    def _failed(self, error: ProtocolError | PeerEndedError | BadRecordError) -> None:
        if isinstance(error, ProtocolError):
            self.end(f"protocol error: {error}", PROTOCOL_ERROR)
        elif isinstance(error, BadRecordError):
            self.end(f"bad record: {error}", None)
        else:
            self.end(str(error), None)

    def _check_drained(self) -> None:
        if self.session.finished and not self._closed:
            self.end("the peer went away", NORMAL)

    def _records(self, buffer: memoryview, high: int) -> None:
        """Open the whole records in ``buffer``, and keep the part of one behind them."""
        opener, plain = self._opener, self.plane.plain
        prefix = opener.prefix
        low = self._low
        while high - low >= prefix:
            start = low + prefix
            low = start + opener.head(buffer, low)
            if low > high:
                low = start - prefix
                break
            size = opener.open(buffer[start:low], plain)
            self._frames(plain[:size])
            if not self.alive:
                return
        if low < high:
            self._keep_part(buffer, low, high)
        elif self._buffer is not None:
            self.plane.give_back(self._buffer)
            self._buffer = None
            self._low = self._high = 0

    def _keep_part(self, buffer: memoryview, low: int, high: int) -> None:
        if self._buffer is None:
            self._buffer = self.plane.borrow()
            self._buffer[: high - low] = buffer[low:high]
            low, high = 0, high - low
        elif RECEIVE_BYTES - high < self._opener.max_record + self._opener.prefix:
            buffer[: high - low] = buffer[low:high]
            low, high = 0, high - low
        self._low, self._high = low, high

    def _frames(self, plain: memoryview) -> None:
        """Handle the frames of one record."""
        at, end = 0, len(plain)
        session = self.session
        if self._decoder.idle:
            # The usual frame by itself: data of a known stream, whole in its record.
            streams, unacknowledged = session.streams, session.unacknowledged
            while end - at > HEADER_BYTES:
                version, kind, flags, stream_id, length = _HEADER.unpack_from(plain, at)
                if version or kind or flags or not length or stream_id in unacknowledged:
                    break
                start = at + HEADER_BYTES
                stream = streams.get(stream_id)
                if stream is None or stream.got_fin or stream.closing or length > end - start:
                    break
                at = start + length
                stream.on_data(length, plain[start:at])
        if at < end:
            for frame in self._decoder.feed(plain[at:]):
                session.handle(frame)
                if not self.alive:
                    return

    # Sending

    def _free(self) -> bool:
        """No part of a record waits for the pipe."""
        return self._left is None

    def _write(self) -> None:
        """Each short stream's record, one of bulk, and what control frames wait."""
        outbox = self.outbox
        quick, bulk = outbox.quick, outbox.bulk
        if len(quick) > 1:
            self._emit_several()
        elif quick:
            self._emit(quick.popleft())
        if not self._free():
            return
        if bulk:
            self._emit(bulk.popleft())
            if not self._free():
                return
        if outbox.urgent:
            self._emit_control()
            if not self._free():
                return
        if quick or bulk or outbox.urgent:
            self._activate()
        elif not self.alive:
            last = outbox.take_go_away()
            if last:
                self._emit_frames(last)
            if self._free():
                self._close()
        elif self.session.finished:
            self.end("the peer went away", NORMAL)

    def _send_now(self, stream: Stream) -> bool:
        """The usual short message on a quiet connection: read, sealed and sent in the turn it came."""
        outbox, end = self.outbox, stream.end
        if self.plane.crowded or self._left is not None or outbox.quick or outbox.urgent or not self.alive:
            return False
        if end is None or stream.head or stream.eof or stream.send_window < SHORT_BYTES:
            return False
        size = end.pull(self._short)
        if size > 0:
            stream.send_window -= size
            _HEADER.pack_into(self._stage, _SHORT_START, 0, DATA, 0, stream.id, size)
            self._seal_and_send(_SHORT_START, HEAD_BYTES + size)
            if end.readable:
                outbox.sent(stream, size, True)
                self._activate()
        elif size == EOF and not stream.dead:
            self.session.finish(stream)
        return True

    def _emit(self, stream: Stream) -> None:
        """One record of a stream whose turn it is."""
        stream.queued = False
        outbox = self.outbox
        control = b""
        if outbox.urgent:
            control = outbox.take_control(_CONTROL_BYTES)
            if outbox.urgent:
                # So many that the stream's own window updates may be among them.
                self._emit_frames(control)
                control = b""
                if self._left is None:
                    self._emit_control()
                if self._left is not None:
                    outbox.ready(stream)
                    return
        if stream.control_flags & SYN:
            control += outbox.take_opening(stream)
        limit = min(self._payload_room - len(control), stream.send_window)
        size = 0
        if limit > 0 and not stream.sent_fin and not (stream.dead and self.alive):
            size = stream.fill(self._slot[:limit])
        if size == EOF and not stream.dead:
            self.session.finish(stream)
        if size <= 0:
            if control:
                self._emit_frames(control)
            return
        stream.send_window -= size
        start = HEAD_BYTES - HEADER_BYTES
        _HEADER.pack_into(self._stage, start, 0, DATA, 0, stream.id, size)
        if control:
            start -= len(control)
            self._stage[start : start + len(control)] = control
        outbox.sent(stream, size, stream.has_more)
        self._seal_and_send(start, HEAD_BYTES + size)

    def _emit_several(self) -> None:
        """One record of all the streams with short messages, as far as they fit."""
        outbox, stage = self.outbox, self._stage
        quick = outbox.quick
        end = 0
        for _ in range(len(quick)):
            if self._max_plain - end < 2 * (_CONTROL_BYTES + HEADER_BYTES) + SHORT_BYTES:
                break
            stream = quick.popleft()
            stream.queued = False
            # A reset of one stream goes before what opens another: that one may take its place.
            control = outbox.take_control(_CONTROL_BYTES) if outbox.urgent else b""
            if stream.control_flags & SYN:
                control += outbox.take_opening(stream)
            if control:
                stage[end : end + len(control)] = control
                end += len(control)
            start = end + HEADER_BYTES
            limit = min(SHORT_BYTES, stream.send_window)
            size = 0
            if limit > 0 and not stream.sent_fin and not (stream.dead and self.alive):
                size = stream.fill(stage[start : start + limit])
            if size > 0:
                stream.send_window -= size
                _HEADER.pack_into(stage, end, 0, DATA, 0, stream.id, size)
                end = start + size
                outbox.sent(stream, size, stream.has_more)
            elif size == EOF and not stream.dead:
                self.session.finish(stream)
        if outbox.urgent:
            control = outbox.take_control(_CONTROL_BYTES)
            stage[end : end + len(control)] = control
            end += len(control)
        if end:
            self._seal_and_send(0, end)

    def _emit_control(self) -> None:
        while self.outbox.urgent and self._left is None:
            frames = self.outbox.take_control(HEAD_BYTES)
            if frames:
                self._emit_frames(frames)

    def _emit_frames(self, frames: bytes) -> None:
        self._stage[: len(frames)] = frames
        self._seal_and_send(0, len(frames))

    def _seal_and_send(self, start: int, end: int) -> None:
        size = self._seal(self._stage[start:end], self._out)
        self.bytes_out += size
        if self._left is not None:
            # Control frames in several records: the second waits behind the first.
            self._left = memoryview(bytes(self._left) + bytes(self._out[:size]))
            return
        try:
            sent = self._send(self._out[:size])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.end(f"the connection broke: {error.strerror or error}", None)
            return
        if sent < size:
            self._left = memoryview(bytes(self._out[sent:size]))

    def _send_left(self) -> None:
        left = self._left
        while left:
            try:
                sent = self._send(left)
                left = left[sent:]
            except BlockingIOError:
                break
            except OSError as error:
                self.end(f"the connection broke: {error.strerror or error}", None)
                return
        self._left = left or None
        if self._left is None:
            self._activate()

    # Keep-alive

    def _ping(self) -> None:
        self.session.ping()
        self._heard = self.bytes_in
        self._pinged_at = time.monotonic()
        self._patient_until = self._pinged_at + self._limits.keep_alive_timeout
        self._check_at(self._patient_until)

    def _check_at(self, due: float) -> None:
        if not self.session.ping_answered:
            # The answer makes it a matter of silence again.
            due = min(due, time.monotonic() + self._limits.keep_alive)
        self._due = due
        self._timer = self.plane.after(due - time.monotonic(), self._check)

    def _check(self) -> None:
        """Ping when silence or the round-trip time's age asks for it; end a connection that says nothing.

        Silent is who says nothing at all: behind megabytes on a slow line, the answer itself may take
        longer than a dead peer may.
        """
        if not self.alive:
            return
        now = time.monotonic()
        limits = self._limits
        if not self.session.ping_answered and self.bytes_in == self._heard:
            if now - self._due >= _STOPPED_SECONDS:
                # This process was stopped, and what came meanwhile is still to be read.
                self._patient_until = now + limits.keep_alive_timeout
            if now >= self._patient_until:
                self.end(f"nothing heard for {now - self.last_received:.0f} s", None)
            else:
                self._check_at(self._patient_until)
            return
        # Anything that arrives puts the next ping off, but not for ever.
        due = min(self.last_received + limits.keep_alive, self._pinged_at + limits.rtt_interval)
        if due <= now:
            self._ping()
        else:
            self._check_at(due)
