"""What one connection sends: from what waits in its outbox to sealed records in its pipe.

One read of a stream's end, one yamux frame, one AEAD call, one send; control frames go in the room
before the header. Nothing is read from an end unless the pipe can take it, and at most one sealed
record waits, partly sent.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .frames import DATA, HEADER_BYTES, SYN
from .outbox import SHORT_BYTES, Outbox
from .plane import HEAD_BYTES, Plane
from .records import Sealer
from .stream import EOF, Stream

if TYPE_CHECKING:
    from .session import Session

_HEADER: Final = struct.Struct("!BBHII")
# Control frames that go with one record of data; more of them go before it.
_CONTROL_BYTES: Final = 1024
_SHORT_START: Final = HEAD_BYTES - HEADER_BYTES


class Writer:
    """``send`` is the pipe's; ``activate`` asks for a turn; ``broken`` is told that the pipe is.

    ``bytes_out``: sealed so far. ``last_words``: the connection ends, and what its streams have left, though
    they are off its table, is still sent. All methods: the data plane's thread.
    """

    def __init__(
        self,
        plane: Plane,
        send: Callable[[memoryview], int],
        sealer: Sealer,
        outbox: Outbox,
        session: Session,
        activate: Callable[[], None],
        broken: Callable[[OSError], None],
    ) -> None:
        self.bytes_out = 0
        self.last_words = False
        self.outbox = outbox
        self.session = session
        self._plane = plane
        self._send = send
        self._seal = sealer.seal
        self._activate = activate
        self._broken = broken
        self._left: memoryview | None = None
        self._stopped = False
        self._max_plain = sealer.max_plain
        self._payload_room = sealer.max_plain - HEADER_BYTES
        self._stage = plane.stage
        self._slot = self._stage[HEAD_BYTES : HEAD_BYTES + self._payload_room]
        self._short = self._slot[:SHORT_BYTES]
        self._out = plane.out

    @property
    def free(self) -> bool:
        """No part of a record waits for the pipe."""
        return self._left is None and not self._stopped

    def stop(self) -> None:
        """Nothing more goes."""
        self._stopped = True
        self._left = None

    def write(self) -> bool:
        """Each short stream's record, one of bulk, and what control frames wait; whether nothing is left."""
        outbox = self.outbox
        quick, bulk = outbox.quick, outbox.bulk
        if len(quick) > 1:
            self._emit_several()
        elif quick:
            self._emit(quick.popleft())
        if bulk and self.free:
            self._emit(bulk.popleft())
        if outbox.urgent and self.free:
            self._emit_control()
        if not self.free:
            return False
        if quick or bulk or outbox.urgent:
            self._activate()
            return False
        return True

    def send_now(self, stream: Stream) -> bool:
        """The usual short message on a quiet connection: read, sealed and sent in the turn it came."""
        outbox, end = self.outbox, stream.end
        if self._plane.crowded or not self.free or outbox.quick or outbox.urgent or self.last_words:
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
                self.send_frames(control)
                control = b""
                if self.free:
                    self._emit_control()
                if not self.free:
                    outbox.ready(stream)
                    return
        if stream.control_flags & SYN:
            control += outbox.take_opening(stream)
        limit = min(self._payload_room - len(control), stream.send_window)
        size = 0
        if limit > 0 and not stream.sent_fin and not (stream.dead and not self.last_words):
            size = stream.fill(self._slot[:limit])
        if size == EOF and not stream.dead:
            self.session.finish(stream)
        if size <= 0:
            if control:
                self.send_frames(control)
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
            if limit > 0 and not stream.sent_fin and not (stream.dead and not self.last_words):
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
        while self.outbox.urgent and self.free:
            frames = self.outbox.take_control(HEAD_BYTES)
            if frames:
                self.send_frames(frames)

    def send_frames(self, frames: bytes) -> None:
        """Control frames in a record of their own."""
        self._stage[: len(frames)] = frames
        self._seal_and_send(0, len(frames))

    def _seal_and_send(self, start: int, end: int) -> None:
        if self._stopped:
            return
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
            self._broken(error)
            return
        if sent < size:
            self._left = memoryview(bytes(self._out[sent:size]))

    def send_left(self) -> None:
        """The pipe takes bytes again: the rest of the record that waits."""
        left = self._left
        while left:
            try:
                sent = self._send(left)
                left = left[sent:]
            except BlockingIOError:
                break
            except OSError as error:
                self._broken(error)
                return
        self._left = left or None
        if self.free:
            self._activate()
