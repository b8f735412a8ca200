"""Joins a local TCP connection and a tunnel stream until both directions have ended.

Half-close passes through each way; a reset of either side becomes a reset of the other;
a byte is read only when the other side takes it (back-pressure); idle is no error.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from ..overlay.wire import ProtocolError
from ..transport.muxstream import MuxedStream
from .header import Verdict, receive_verdict

CHUNK = 65536
_ENDED = (trio.BrokenResourceError, trio.ClosedResourceError, ProtocolError)


@dataclass
class Counters:
    """Of one proxy: live and past connections; bytes from local to tunnel (out) and back (in)."""

    connections: int = 0
    total: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    last_error: str | None = None
    on_change: Callable[[], None] = field(default=lambda: None, repr=False)
    _ended: trio.Event = field(default_factory=trio.Event, repr=False)

    def begin(self) -> None:
        """A connection begins."""
        self.connections += 1
        self.total += 1
        self.on_change()

    def end(self) -> None:
        """A connection has ended."""
        self.connections -= 1
        self._ended.set()
        self._ended = trio.Event()
        self.on_change()

    async def idle(self) -> None:
        """Wait until no connection is left."""
        while self.connections:
            await self._ended.wait()


class RefusedError(Exception):
    """Ingress refused the connection with this verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.name)
        self.verdict = verdict


def abort(local: trio.SocketStream) -> None:
    """Close a TCP connection so that its peer sees a reset, not an orderly end."""
    with contextlib.suppress(OSError):
        local.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    local.socket.close()


async def join(
    local: trio.SocketStream, tunnel: MuxedStream, counters: Counters, *, await_verdict: bool = False
) -> None:
    """Pass bytes both ways until both have ended. Closes both in every case.

    ``bytes_out`` counts local to tunnel, ``bytes_in`` tunnel to local. ``await_verdict``:
    the tunnel's first byte is ingress's verdict; RefusedError when that is not OPEN.
    """
    refused: list[Verdict] = []
    open_halves = 2

    def half_ended() -> None:
        nonlocal open_halves
        open_halves -= 1
        if not open_halves:
            nursery.cancel_scope.cancel()

    async def outward() -> None:
        while data := await local.receive_some(CHUNK):
            await tunnel.send_all(data)
            counters.bytes_out += len(data)
        await tunnel.send_eof()
        half_ended()
        await _wait_gone(local)

    async def inward() -> None:
        if await_verdict:
            verdict = await receive_verdict(tunnel)
            if verdict is not Verdict.OPEN:
                refused.append(verdict)
                raise trio.BrokenResourceError("refused")
        while data := await tunnel.receive_some(CHUNK):
            await local.send_all(data)
            counters.bytes_in += len(data)
        await local.send_eof()
        half_ended()
        await tunnel.wait_broken()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inward)
            nursery.start_soon(outward)
    except* _ENDED:
        pass
    finally:
        # The order matters to the eyes of the peers: a half that broke must not look like an end.
        if not open_halves:
            local.socket.close()
        else:
            abort(local)
            tunnel.reset()
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(tunnel)
    if refused:
        raise RefusedError(refused[0])


async def _wait_gone(local: trio.SocketStream) -> None:
    """Raise BrokenResourceError once a TCP connection whose peer has ended its half is reset.

    It is read no more then, and a write that would fail may never come. Returns when our half has
    ended too, which is a hang-up but no error.
    """
    with select.epoll() as poll:
        # No events are asked for: errors and hang-ups are told unasked (epoll_ctl(2)).
        poll.register(local.socket.fileno(), 0)
        await trio.lowlevel.wait_readable(poll.fileno())
        if any(events & select.EPOLLERR for _, events in poll.poll(0)):
            raise trio.BrokenResourceError("the connection was reset")
