"""One stream of a connection, as trio's HalfCloseableStream."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import trio

from .frames import INITIAL_WINDOW, MAX_LENGTH
from .inbox import Inbox
from .outbox import Lane

if TYPE_CHECKING:
    from .session import Session

_READ_BYTES = 64 * 1024


class MuxedStream(trio.abc.HalfCloseableStream):
    """A byte stream both ways over one connection; made by ``Muxer.open`` and ``accept``.

    Any wait may be cancelled and harms neither the connection nor other streams. Nothing times out:
    a stream whose peer does not read waits for ever. One task may send while another receives;
    two at once in one direction raise trio.BusyResourceError.

    ``bytes_in`` and ``bytes_out`` count payload that the application has received and that ``send_all``
    has taken. ``was_reset``: the stream ended by RST of either side, or its connection was lost.
    """

    def __init__(self, stream_id: int, session: Session) -> None:
        self.id = stream_id
        self.bytes_in = 0
        self.bytes_out = 0
        self.was_reset = False
        # For the session only.
        self.inbox = Inbox(trio.current_time())
        self.lane = Lane(stream_id, self._wake_sender)
        self.got_fin = False
        self.sent_fin = False
        self._session = session
        self._send_window = INITIAL_WINDOW
        self._closed = False
        self._sending = False
        self._cuttable = False
        self._torn = False
        self._receiving = False
        self._send_error: str | None = None
        self._receive_error: str | None = None
        self._broken = trio.Event()
        self._sender = trio.lowlevel.ParkingLot()
        self._receiver = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<MuxedStream {self.id}>"

    # Sending

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``; returns when its last bytes wait in the writer, which holds 64 KiB a stream.

        Cancelled, it may have sent a prefix of ``data``; the stream stays usable, but ``aclose`` then
        resets it: what was torn must not look complete. Raises ClosedResourceError after
        ``aclose``, ``reset`` or ``send_eof``, BrokenResourceError after a reset by the peer or
        the loss of the connection.
        """
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = self._cuttable = True
        sent = 0
        try:
            await trio.lowlevel.checkpoint()
            with memoryview(data) as view, view.cast("B") as rest:
                while True:
                    self._check_sendable()
                    room = min(self._room(), len(rest) - sent)
                    if room > 0:
                        # bytes() of a whole bytes object is that object; anything else is copied,
                        # for it is the caller's to change once this has returned.
                        whole = room == len(rest) and isinstance(data, bytes)
                        self._session.outbox.send(
                            self.lane, bytes(data if whole else rest[sent : sent + room])
                        )
                        self._send_window -= room
                        self.bytes_out += room
                        sent += room
                    if sent == len(rest):
                        return
                    await self._sender.park()
        except trio.Cancelled:
            self._torn = self._torn or sent > 0
            raise
        finally:
            self._sending = self._cuttable = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until ``send_all`` can take something. Raises as ``send_all`` does."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                self._check_sendable()
                if self._room() > 0:
                    return
                await self._sender.park()
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """Half-close: the peer reads to the end of what was sent, then EOF. Receiving goes on."""
        await trio.lowlevel.checkpoint()
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if not self.sent_fin or self._closed:
            self._check_sendable()
            self._finish()

    def _room(self) -> int:
        return min(self._send_window, self._session.outbox.room(self.lane))

    def _check_sendable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._send_error is not None:
            raise trio.BrokenResourceError(self._send_error)
        if self.sent_fin:
            raise trio.ClosedResourceError("send_eof was called")

    def _finish(self) -> None:
        self.sent_fin = True
        self._session.finish(self)

    def _wake_sender(self) -> None:
        self._sender.unpark_all()

    # Receiving

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Some bytes, at most ``max_bytes`` (64 KiB); b"" when the peer has ended its side cleanly.

        What came before the peer's FIN is delivered first, even when the connection is lost meanwhile.
        After RST, or a loss without FIN, it raises BrokenResourceError at once: what is still
        buffered has no known end. ClosedResourceError after ``aclose`` or ``reset``.
        """
        limit = _READ_BYTES if max_bytes is None else operator.index(max_bytes)
        if limit < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                if self._closed:
                    raise trio.ClosedResourceError("this stream is closed")
                if self._receive_error is not None:
                    raise trio.BrokenResourceError(self._receive_error)
                data = self.inbox.get(limit)
                if data:
                    self.bytes_in += len(data)
                    self._give_credit()
                    return data
                if self.got_fin:
                    return b""
                await self._receiver.park()
        finally:
            self._receiving = False

    def _give_credit(self) -> None:
        if self.got_fin:
            return  # There is nothing left to send into the window.
        session = self._session
        credit = self.inbox.credit(trio.current_time(), session.rtt, session.may_grow)
        if credit:
            session.outbox.control(self.lane, credit=credit)

    async def wait_broken(self) -> None:
        """Wait for a reset by the peer or the loss of the connection; BrokenResourceError then.

        For whoever neither sends nor receives any more and would not learn of it otherwise.
        """
        await self._broken.wait()
        raise trio.BrokenResourceError(self._send_error or "the stream was reset")

    # Ending

    async def aclose(self) -> None:
        """Close both directions, as TCP's close() does; what was sent is still delivered.

        FIN goes out behind what is queued. Unread and later data is discarded without new window; a
        peer that sends more than half a window of it gets RST, so that it does not wait for
        ever. Where a ``send_all`` was cut short, or is still at it, the stream is reset instead.
        Nothing is awaited but a checkpoint, also when cancelled.
        """
        if not self._closed:
            if self._torn or self._cuttable:
                self.reset()
            else:
                self._closed = True
                if self._send_error is None:
                    if not self.sent_fin:
                        self._finish()
                    self._session.linger(self)
                self.inbox.clear()
                self._sender.unpark_all()
                self._receiver.unpark_all()
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """End the stream abruptly: what is queued is dropped, the peer's next call fails.

        Does nothing after ``aclose``, or where both sides had ended cleanly.
        """
        if self._closed:
            return
        self._closed = True
        if self._send_error is None and not (self.got_fin and self.sent_fin):
            self.was_reset = True
            self._session.reset(self)
        self.inbox.clear()
        self._sender.unpark_all()
        self._receiver.unpark_all()

    # From the session

    def on_data(self, length: int, payload: bytes) -> None:
        """Part of a frame that takes ``length`` from the window. Raises ProtocolError on an overrun."""
        self.inbox.announce(length)
        self.inbox.put(payload)
        self._receiver.unpark_all()

    def on_credit(self, credit: int) -> None:
        """The peer takes ``credit`` bytes more."""
        self._send_window = min(self._send_window + credit, MAX_LENGTH)
        self._sender.unpark_all()

    def on_fin(self) -> None:
        """The peer has ended its side."""
        self.got_fin = True
        self._receiver.unpark_all()

    def on_reset(self, why: str = "the peer reset the stream") -> None:
        """RST came, or the peer's frames make no sense on this stream."""
        self._break(why, receiving=True)

    def on_connection_lost(self, why: str) -> None:
        """The connection is over. What ended with FIN stays readable."""
        self._break(why, receiving=not self.got_fin)

    def _break(self, why: str, *, receiving: bool) -> None:
        self.was_reset = True
        self._send_error = why
        self._broken.set()
        if receiving:
            self._receive_error = why
            self.inbox.clear()
        self._sender.unpark_all()
        self._receiver.unpark_all()
