"""The stream multiplexer: one yamux connection (/yamux/1.0.0) over any byte pipe.

py-libp2p's own yamux resets streams whose window is empty for 5 s, ends the connection when
a write is cancelled, and loses data on close (findings/py-libp2p.md, rows 1, 2, 5); hence this one. The
protocol is in ``frames``, ``outbox``, ``inbox`` and ``session``; here are only the three tasks
that move bytes and look at the clock.
"""

from __future__ import annotations

import contextlib

import trio

from .frames import NORMAL, PROTOCOL_ERROR, Decoder, ProtocolError
from .limits import MuxLimits
from .muxstream import MuxedStream
from .outbox import Outbox
from .session import PeerEndedError, Session

_READ_BYTES = 128 * 1024
_PIPE_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
_DEFAULT_LIMITS = MuxLimits()


class Muxer:
    """One connection. Nothing moves until ``run`` does; ``open`` may be called before.

    ``closed`` is set when the connection is over and its pipe closed; ``close_reason`` then says why,
    for people ("" before). ``rtt``: seconds, of the newest ping answered, None before the first.
    ``last_received``: when bytes last came, by trio's clock. ``bytes_in`` and ``bytes_out`` count what
    has passed the pipe, headers included.
    """

    def __init__(
        self, pipe: trio.abc.Stream, *, initiator: bool, limits: MuxLimits = _DEFAULT_LIMITS
    ) -> None:
        self.closed = trio.Event()
        self.close_reason = ""
        self.last_received = trio.current_time()
        self.bytes_in = 0
        self.bytes_out = 0
        self._pipe = pipe
        self._limits = limits
        self._work = trio.Event()
        self._outbox = Outbox(limits.max_queued, self._wake)
        self._session = Session(initiator=initiator, limits=limits, outbox=self._outbox)
        self._scope = trio.CancelScope()
        self._running = False
        self._ending = False
        self._closed_here = False

    @property
    def rtt(self) -> float | None:
        """Seconds from a ping to its answer, both in front of any data that waits."""
        return self._session.rtt

    @property
    def stream_count(self) -> int:
        """Streams that are open in at least one direction, those not yet accepted included."""
        return len(self._session.streams)

    def set_limits(self, limits: MuxLimits) -> None:
        """Other bounds for streams and windows from now on: a peer has proved what it is."""
        self._session.limits = limits

    # Streams

    async def open(self) -> MuxedStream:
        """A new stream, usable at once; the peer may still refuse it by a reset.

        Waits while the peer has 256 streams of ours to acknowledge. Raises ClosedResourceError after
        ``aclose``, BrokenResourceError when the connection is lost or the peer is going away.
        """
        await trio.lowlevel.checkpoint()
        while True:
            self._check_open()
            if self._session.may_open:
                return self._session.open()
            await self._session.openers.park()

    async def accept(self) -> MuxedStream:
        """The next stream that the peer opened. Raises when the connection is over:
        ClosedResourceError after ``aclose``, else EndOfChannel."""
        await trio.lowlevel.checkpoint()
        while True:
            if self.closed.is_set():
                if self._closed_here:
                    raise trio.ClosedResourceError("the connection is closed")
                raise trio.EndOfChannel(self.close_reason)
            if self._session.backlog:
                return self._session.accept()
            await self._session.acceptors.park()

    def _check_open(self) -> None:
        if self._closed_here:
            raise trio.ClosedResourceError("the connection is closed")
        if self._ending:
            raise trio.BrokenResourceError(self.close_reason)
        if self._session.exhausted:
            self._session.drain()
        if self._session.draining:
            raise trio.BrokenResourceError("the connection takes no more streams")

    # Life

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Move bytes until the connection ends; then close the pipe and set ``closed``.

        Never raises for what the network or the peer does. Cancelled, it closes without GoAway.
        """
        assert not self._running, "a muxer runs once"
        self._running = True
        try:
            if not self._ending:
                with self._scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._read)
                        nursery.start_soon(self._write)
                        nursery.start_soon(self._keep_alive)
                        task_status.started()
            else:
                task_status.started()
        except Exception:
            self._end("internal error", None)
            raise
        finally:
            self._end("cancelled", None)
            with trio.move_on_after(self._limits.close_timeout, shield=True):
                await self._close_pipe()
            self._set_closed()

    async def aclose(self) -> None:
        """Send what is queued and GoAway, and close the pipe; takes 2 s at the very most.

        Open streams end at once with BrokenResourceError. Never raises but trio.Cancelled, and
        closes then too.
        """
        if not self._ending:
            self._closed_here = True
        self._end("closed here", NORMAL)
        if self._running:
            try:
                await self.closed.wait()
            except trio.Cancelled:
                self._scope.cancel()
                raise
            return
        # run() will find nothing to do.
        try:
            with trio.move_on_after(self._limits.close_timeout):
                await self._close_pipe()
        finally:
            self._set_closed()

    def _end(self, why: str, code: int | None) -> None:
        """The end begins; the first reason counts. ``code``: of the GoAway to send, None for none."""
        if self._ending:
            return
        self._ending = True
        self.close_reason = why
        self._session.fail(why)
        if code is None:
            self._scope.cancel()
        else:
            # The writer ends everything when it has written that.
            self._outbox.go_away(code, drop=code != NORMAL)
            self._scope.deadline = trio.current_time() + self._limits.close_timeout

    async def _close_pipe(self) -> None:
        with contextlib.suppress(*_PIPE_ERRORS):
            await self._pipe.aclose()

    def _set_closed(self) -> None:
        self.closed.set()
        self._session.acceptors.unpark_all()

    # The three tasks

    async def _read(self) -> None:
        decoder = Decoder(self._limits.max_frame)
        try:
            while True:
                data = await self._pipe.receive_some(_READ_BYTES)
                if not data:
                    self._end("the peer closed the connection", None)
                    return
                self.last_received = trio.current_time()
                self.bytes_in += len(data)
                # Once the end has begun, the rest is read only to be discarded: a TCP connection closed on
                # unread data is reset, and our GoAway lost with it.
                if not self._ending:
                    self._handle(decoder, data)
        except _PIPE_ERRORS as error:
            self._end(f"the connection broke: {error}", None)

    def _handle(self, decoder: Decoder, data: bytes | bytearray) -> None:
        try:
            for frame in decoder.feed(data):
                self._session.handle(frame)
        except ProtocolError as error:
            self._end(f"protocol error: {error}", PROTOCOL_ERROR)
        except PeerEndedError as error:
            self._end(str(error), None)

    async def _write(self) -> None:
        try:
            while True:
                batch = self._outbox.take()
                if batch:
                    # Cancelled only by the end of the connection, so whole frames go out.
                    await self._pipe.send_all(batch)
                    self.bytes_out += len(batch)
                elif self._ending:
                    self._scope.cancel()
                    return
                elif self._session.finished:
                    self._end("the peer went away", NORMAL)
                else:
                    self._work = trio.Event()
                    await self._work.wait()
        except _PIPE_ERRORS as error:
            self._end(f"the connection broke: {error}", None)
            self._scope.cancel()

    def _wake(self) -> None:
        self._work.set()

    async def _keep_alive(self) -> None:
        """Ping at the start, for the round-trip time, then when silence or its age asks for it."""
        limits = self._limits
        while True:
            sent = trio.current_time()
            self._session.ping()
            if not await self._answered(sent):
                self._end("keep-alive timeout", None)
                return
            # Anything that arrives puts the next ping off, but not for ever.
            while (now := trio.current_time()) < sent + limits.rtt_interval:
                due = min(self.last_received + limits.keep_alive, sent + limits.rtt_interval)
                if due <= now:
                    break
                await trio.sleep_until(due)

    async def _answered(self, sent: float) -> bool:
        """Wait for the ping's answer; False when the peer stays silent instead.

        Silent is who says nothing at all: behind megabytes on a slow line, the answer itself may take
        longer than a dead peer may.
        """
        heard = self.bytes_in
        timeout = self._limits.keep_alive_timeout
        deadline = sent + timeout
        while True:
            with trio.move_on_at(deadline):
                await self._session.answered.wait()
                return True
            if self.bytes_in != heard:
                return True
            late = trio.current_time() - deadline
            if late < 1.0:
                return False
            # This process was stopped, and what came meanwhile is still to be read.
            deadline += late + timeout
