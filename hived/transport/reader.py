"""What one connection receives: from its pipe's bytes to opened records to frames that its session handles.

A turn reads once, and handles so many records and frames; what is behind those waits for the next turn,
so that a record of ten thousand pings, or ten thousand empty records, cost their sender time and nobody else.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import Final

from .frames import DATA, HEADER_BYTES, Decoder, Frame
from .limits import RECEIVE_BYTES
from .plane import Plane
from .records import Opener
from .session import Session

_HEADER: Final = struct.Struct("!BBHII")
# So little is copied rather than given a buffer of its own.
_SMALL_BYTES: Final = 16 * 1024


class PipeError(Exception):
    """The pipe is broken; the text says how."""


class Reader:
    """``recv_into`` is the pipe's. All methods: the data plane's thread.

    ``bytes_in``: sealed, so far; ``last_received``: when bytes last came, by the monotonic clock;
    ``readable``, ``hung_up``: what the pipe has told. ``discarding``: what comes is read and thrown away.
    """

    def __init__(
        self, plane: Plane, recv_into: Callable[[memoryview], int], opener: Opener, session: Session
    ) -> None:
        self.bytes_in = 0
        self.last_received = time.monotonic()
        self.readable = False
        self.hung_up = False
        self.discarding = False
        self._plane = plane
        self._recv_into = recv_into
        self._opener = opener
        self._session = session
        self._decoder = Decoder(session.limits.max_frame)
        # Part of a record, and whole ones for which a turn had no more time: in a borrowed buffer, from _low
        # to _high, or, where that is short or the peer has proved nothing, in memory just as large.
        self._buffer: memoryview | None = None
        self._low = self._high = 0
        self._rest = b""
        # Of those, a whole record may be the first.
        self._more = False
        # Opened frames for which a turn had no more time, in memory of their own.
        self._waiting: memoryview | None = None
        # What this turn may still do: records and frames.
        self._left = 0

    @property
    def behind(self) -> bool:
        """Of what has come together, some waits for another turn."""
        return self._waiting is not None or self._more

    @property
    def wants_turn(self) -> bool:
        """There is more to do, and no event will tell so."""
        return self._waiting is not None or self._more or self.readable

    def handle_opened(self, plain: bytes) -> None:
        """Frames that came behind the handshake. Raises as ``read``."""
        self._left = self._session.limits.frames_at_once
        self._frames_and_wait(memoryview(plain))

    def read(self) -> bool:
        """One turn: frames that wait, or one read and the records that it completes. False at the pipe's end.

        Raises PipeError, and for what comes BadRecordError, ProtocolError and PeerEndedError.
        """
        limits = self._session.limits
        self._left = limits.frames_at_once
        waiting = self._waiting
        if waiting is not None and not self._frames_and_wait(waiting):
            return True
        buffer, high = self._buffer, self._high
        if buffer is None:
            buffer, high = self._plane.scratch, len(self._rest)
            if high:
                buffer[:high] = self._rest
        if waiting is not None or self._more:
            self._records(buffer, high)
            return True
        try:
            size = self._recv_into(buffer[high : high + limits.read_at_once])
        except BlockingIOError:
            self.readable = False
            return True
        except OSError as error:
            raise PipeError(error.strerror or str(error)) from error
        if size == 0:
            return False
        # A full buffer means that there may be more, of which no new edge would tell.
        if size < limits.read_at_once and high + size < RECEIVE_BYTES and not self.hung_up:
            self.readable = False
        self.bytes_in += size
        self.last_received = time.monotonic()
        if not self.discarding:
            self._records(buffer, high + size)
        return True

    def discard(self) -> None:
        """The connection ends: what has come and what comes is nobody's any more.

        It is still read: a TCP connection that is closed on unread data is reset, our GoAway with it.
        """
        self.discarding = True
        self._forget()

    def close(self) -> None:
        """No more reads."""
        self._forget()

    def _forget(self) -> None:
        self._waiting = None
        self._more = False
        self._rest = b""
        self._give_back()

    def _give_back(self) -> None:
        if self._buffer is not None:
            self._plane.give_back(self._buffer)
            self._buffer = None
        self._low = self._high = 0

    def _records(self, buffer: memoryview, high: int) -> None:
        """Open the whole records in ``buffer``, as many as this turn may, and keep what is behind them."""
        opener, plain = self._opener, self._plane.plain
        prefix = opener.prefix
        low = self._low
        self._more = False
        while high - low >= prefix:
            if self._left <= 0:
                self._more = True
                break
            self._left -= 1
            start = low + prefix
            low = start + opener.head(buffer, low)
            if low > high:
                low = start - prefix
                break
            size = opener.open(buffer[start:low], plain)
            handled = self._frames(plain[:size])
            if self.discarding:
                return
            if handled < size:
                # ``plain`` is everybody's.
                self._waiting = memoryview(bytes(plain[handled:size]))
                break
        self._keep(buffer, low, high)

    def _keep(self, buffer: memoryview, low: int, high: int) -> None:
        size = high - low
        if size <= _SMALL_BYTES or not self._session.limits.borrows:
            self._rest = bytes(buffer[low:high])
            self._give_back()
            return
        if self._buffer is None:
            self._buffer = self._plane.borrow()
            self._buffer[:size] = buffer[low:high]
            self._rest = b""
            low, high = 0, size
        elif RECEIVE_BYTES - high < self._opener.max_record + self._opener.prefix:
            buffer[:size] = buffer[low:high]
            low, high = 0, size
        self._low, self._high = low, high

    def _frames_and_wait(self, plain: memoryview) -> bool:
        """Handle frames, which nobody else will overwrite; whether that were all."""
        handled = self._frames(plain)
        self._waiting = plain[handled:] if handled < len(plain) and not self.discarding else None
        return handled == len(plain)

    def _frames(self, plain: memoryview) -> int:
        """Handle the frames of one record, as many as this turn may; how many bytes these are."""
        at, end = 0, len(plain)
        session, decoder = self._session, self._decoder
        streams, unacknowledged = session.streams, session.unacknowledged
        if not decoder.idle:
            at = self._rest_of_frame(plain)
        while end - at >= HEADER_BYTES and not self.discarding:
            if self._left <= 0:
                return at
            self._left -= 1
            version, kind, flags, stream_id, length = _HEADER.unpack_from(plain, at)
            start = at + HEADER_BYTES
            if not (version or kind or flags or stream_id in unacknowledged):
                # The usual frame by itself: data of a known stream.
                stream = streams.get(stream_id)
                if (
                    stream is not None
                    and 0 < length <= end - start
                    and not (stream.got_fin or stream.closing)
                ):
                    at = start + length
                    stream.on_data(length, plain[start:at])
                    continue
            kind, flags, stream_id, length = decoder.parse(plain, at)
            payload = length if kind == DATA else 0
            if payload > end - start:
                break
            at = start + payload
            session.handle(Frame(kind, flags, stream_id, length, plain[start:at]))
        if at < end and not self.discarding:
            # Its rest comes in another record.
            self._left -= 1
            for frame in decoder.feed(plain[at:]):
                session.handle(frame)
        return end

    def _rest_of_frame(self, plain: memoryview) -> int:
        """Handle what comes of a frame whose front was in another record; where the next one begins."""
        decoder, session = self._decoder, self._session
        self._left -= 1
        for frame in decoder.feed(plain):
            session.handle(frame)
            if decoder.idle:
                return decoder.position
        return len(plain)
