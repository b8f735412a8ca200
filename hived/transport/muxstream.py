"""One stream of a connection, as trio's HalfCloseableStream."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import trio

from .mailbox import PIECE_BYTES, Mailbox

if TYPE_CHECKING:
    from .plane import Plane


class MuxedStream(trio.abc.HalfCloseableStream):
    """A byte stream both ways over one connection; made by ``Muxer.open`` and ``accept``.

    Any wait may be cancelled and harms neither the connection nor other streams. Nothing times out:
    a stream whose peer does not read waits for ever. One task may send while another receives;
    two at once in one direction raise trio.BusyResourceError.

    ``bytes_in`` and ``bytes_out`` count payload that the application has received and that ``send_all``
    has taken. ``was_reset``: the stream ended by RST of either side, or its connection was lost.
    """

    def __init__(self, plane: Plane) -> None:
        self.id = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.was_reset = False
        self.mailbox = Mailbox(plane, self)
        self._plane = plane
        self._piece = b""
        self._pieces = 0
        self._unsent = 0
        self._got_fin = False
        self._sent_fin = False
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
        """Send ``data``; returns when its last bytes wait in the data plane, which holds 64 KiB a stream.

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
                    room = min(PIECE_BYTES - self._unsent, len(rest) - sent)
                    if room > 0:
                        # bytes() of a whole bytes object is that object; anything else is copied,
                        # for it is the caller's to change once this has returned.
                        whole = room == len(rest) and isinstance(data, bytes)
                        part = bytes(data if whole else rest[sent : sent + room])
                        self._plane.call(self.mailbox.push, part)
                        self._unsent += room
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
                if self._unsent < PIECE_BYTES:
                    return
                await self._sender.park()
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """Half-close: the peer reads to the end of what was sent, then EOF. Receiving goes on."""
        await trio.lowlevel.checkpoint()
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if not self._sent_fin or self._closed:
            self._check_sendable()
            self._sent_fin = True
            self._plane.call(self.mailbox.finish)

    def _check_sendable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._send_error is not None:
            raise trio.BrokenResourceError(self._send_error)
        if self._sent_fin:
            raise trio.ClosedResourceError("send_eof was called")

    # Receiving

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Some bytes, at most ``max_bytes`` (64 KiB); b"" when the peer has ended its side cleanly.

        What came before the peer's FIN is delivered first, even when the connection is lost meanwhile.
        After RST, or a loss without FIN, it raises BrokenResourceError at once: what is still
        buffered has no known end. ClosedResourceError after ``aclose`` or ``reset``.
        """
        limit = PIECE_BYTES if max_bytes is None else operator.index(max_bytes)
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
                if self._piece:
                    return self._take(limit)
                if self._got_fin:
                    return b""
                await self._receiver.park()
        finally:
            self._receiving = False

    def _take(self, limit: int) -> bytes:
        data, self._piece = self._piece[:limit], self._piece[limit:]
        self.bytes_in += len(data)
        if not self._piece and not self._got_fin:
            self._plane.call(self.mailbox.more)
        return data

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
                self._close_face()
                self._plane.call(self.mailbox.close)
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """End the stream abruptly: what is queued is dropped, the peer's next call fails.

        Does nothing after ``aclose``, or where both sides had ended cleanly.
        """
        if self._closed:
            return
        self._close_face()
        if self._send_error is None and not (self._got_fin and self._sent_fin):
            self.was_reset = True
        # Also where it is over: what came and was not read is still held for it.
        self._plane.call(self.mailbox.reset)

    def detach(self) -> tuple[int, bytes]:
        """Let go of the stream, for another end to take it over: the arguments of ``Mailbox.take_over``.

        This object is closed afterwards. Raises what ``send_all`` would.
        """
        self._check_sendable()
        if self._sending or self._receiving:
            raise trio.BusyResourceError("another task uses this stream")
        left = self._pieces, self._piece
        self._close_face()
        return left

    def _close_face(self) -> None:
        self._closed = True
        self._piece = b""
        self._wake()

    def _wake(self) -> None:
        self._sender.unpark_all()
        self._receiver.unpark_all()

    # From the data plane

    def on_piece(self, data: bytes) -> None:
        """Bytes have come; no more do until these are read."""
        self._pieces += 1
        if not self._closed and self._receive_error is None:
            self._piece = data
            self._receiver.unpark_all()

    def on_sent(self, count: int) -> None:
        """So many bytes have left the data plane."""
        self._unsent -= count
        self._sender.unpark_all()

    def on_fin(self) -> None:
        """The peer has ended its side, and all that it sent has come."""
        self._got_fin = True
        self._receiver.unpark_all()

    def on_broken(self, why: str, received: bool) -> None:
        """RST came, or the connection is lost; ``received``: the peer had ended its side before."""
        self.was_reset = True
        self._send_error = why
        self._broken.set()
        if not received:
            self._receive_error = why
            self._piece = b""
        self._wake()
