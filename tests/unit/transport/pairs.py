"""Muxers over socket pairs for the tests: two that talk to each other, or one and a raw peer.

Both sides seal for real, with keys that the tests know. ``settle`` knows the data plane that ``plane`` runs.
"""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import pytest
import trio
import trio.testing

from hived.transport import planethread, suites
from hived.transport.budget import Budget
from hived.transport.limits import MuxLimits
from hived.transport.mailbox import PIECE_BYTES
from hived.transport.muxer import Muxer
from hived.transport.muxstream import MuxedStream
from hived.transport.pipes import SocketPipe
from hived.transport.plane import Plane
from hived.transport.records import Opener, Sealer
from hived.transport.stream import Stream
from hived.transport.suites import Suite

SYN, ACK, FIN, RST = 1, 2, 4, 8
DATA, WINDOW, PING, GO_AWAY = 0, 1, 2, 3
WINDOW_BYTES = 256 * 1024
KEY_THERE, KEY_BACK = b"there" * 6 + b"!!", b"back!" * 6 + b"!!"
# What the kernel makes of the smallest buffer that it gives is about 2 KiB.
_TINY = 1
# settle: rounds without any change before all is held for done, and rounds in which that must be.
_STILL, _ROUNDS = 4, 2000

# What a writer gets rid of at most while nobody reads: a piece in the hands of the peer's trio, the peer's
# window, and its own place in the data plane.
STALLED_BYTES = WINDOW_BYTES + 2 * PIECE_BYTES

T = TypeVar("T")
_running: trio.lowlevel.RunVar[Plane] = trio.lowlevel.RunVar("the plane of this test")
_muxers: trio.lowlevel.RunVar[list[Muxer]] = trio.lowlevel.RunVar("the muxers of this test")


def trio_test(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test, with a net against those that hang."""

    @functools.wraps(function)
    def run(**arguments: Any) -> None:
        async def main() -> None:
            with trio.fail_after(30):
                await function(**arguments)

        trio.run(main)

    return run


# The data plane


@contextlib.asynccontextmanager
async def plane(budget: Budget | None = None) -> AsyncIterator[Plane]:
    """The test's running data plane: a nested one is the outer one."""
    try:
        yield _running.get()
        return
    except LookupError:
        made = Plane()
    if budget is not None:
        made.budget = budget
    async with planethread.running(made):
        token = _running.set(made)
        listed = _muxers.set([])
        try:
            yield made
        finally:
            _running.reset(token)
            _muxers.reset(listed)


async def on_plane(running: Plane, function: Callable[[], T]) -> T:
    """What ``function`` gives on the plane's thread, behind all that was called there before."""
    done = trio.Event()
    found: list[T] = []

    def there() -> None:
        try:
            found.append(function())
        finally:
            running.tell(done.set)

    running.call(there)
    with trio.CancelScope(shield=True):
        await done.wait()
    return found[0]


def _busy(running: Plane) -> bool:
    return bool(running._active or running._calls)


async def settle() -> None:
    """Wait until neither the plane's thread nor trio's tasks have anything more to do.

    Barriers through both, again and again until several in a row have changed nothing.
    """
    running = _running.get()
    still, last = 0, None
    for _ in range(_ROUNDS):
        await trio.testing.wait_all_tasks_blocked()
        busy = await on_plane(running, lambda: _busy(running))
        now = (
            [(muxer.bytes_in, muxer.bytes_out, muxer.closed.is_set()) for muxer in _muxers.get()],
            len(running._handlers),
            running.budget.windows,
            running.budget.buffered,
        )
        still = still + 1 if now == last and not busy else 0
        if still >= _STILL:
            return
        last = now
    raise AssertionError("the data plane does not come to rest")


# Sockets and what is on them


def tiny(sock: socket.socket) -> None:
    """Let the kernel hold next to nothing."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _TINY)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _TINY)


def sockets(kind: str = "socket") -> tuple[socket.socket, socket.socket]:
    """A non-blocking pair: ``socket``, ``tcp``, or ``tiny``: two kilobytes are on the way at most."""
    if kind == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            one = socket.create_connection(listener.getsockname())
            pair = one, listener.accept()[0]
    else:
        pair = socket.socketpair()
    for end in pair:
        end.setblocking(False)
        if kind == "tiny":
            tiny(end)
    return pair


def make_muxer(
    running: Plane,
    sock: socket.socket,
    *,
    initiator: bool,
    suite: Suite = suites.NOISE,
    limits: MuxLimits | None = None,
    **more: Any,
) -> Muxer:
    """A muxer over a socket, not yet running."""
    mine, theirs = (KEY_THERE, KEY_BACK) if initiator else (KEY_BACK, KEY_THERE)
    made = Muxer(
        running,
        SocketPipe(sock),
        Sealer(suite, mine),
        Opener(suite, theirs),
        initiator=initiator,
        limits=limits or MuxLimits(),
        **more,
    )
    _muxers.get().append(made)
    return made


def of_plane(stream: MuxedStream) -> Stream:
    """The plane's half of a stream; only looked at, when all has settled."""
    found = stream.mailbox.stream
    assert found is not None
    return found


def break_soon(running: Plane, stream: Stream) -> None:
    """As if the peer had reset the stream, behind what was called before."""
    running.call(stream.on_reset)
    running.call(stream.session.reset, stream)


def sent_and_waits(stream: MuxedStream) -> int:
    """Bytes that ``send_all`` has taken and that still wait in the plane."""
    return len(stream.mailbox._out)


@contextlib.asynccontextmanager
async def muxers(
    kind: str = "socket", suite: Suite = suites.NOISE, **limits: Any
) -> AsyncIterator[tuple[Muxer, Muxer]]:
    """Two running muxers, the first of which is the initiator."""
    one, other = sockets(kind)
    async with plane() as running, trio.open_nursery() as nursery:
        a = make_muxer(running, one, initiator=True, suite=suite, limits=MuxLimits(**limits))
        b = make_muxer(running, other, initiator=False, suite=suite, limits=MuxLimits(**limits))
        await nursery.start(a.run)
        await nursery.start(b.run)
        yield a, b
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def streams(
    kind: str = "socket", suite: Suite = suites.NOISE, **limits: Any
) -> AsyncIterator[tuple[MuxedStream, MuxedStream, Muxer, Muxer]]:
    """A stream, seen from its opener and from the other side, and their muxers."""
    async with muxers(kind, suite, **limits) as (a, b):
        ours = await a.open()
        yield ours, await b.accept(), a, b


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Everything to the clean end."""
    data = bytearray()
    while part := await stream.receive_some():
        data += part
    return bytes(data)


async def receive_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """``count`` bytes."""
    data = bytearray()
    while len(data) < count:
        part = await stream.receive_some(count - len(data))
        assert part, f"the stream ended after {len(data)} bytes"
        data += part
    return bytes(data)


async def ends(muxer: Muxer, stream: MuxedStream, *, here: bool) -> None:
    """Everything on an ended connection fails, and in the documented way."""
    await muxer.closed.wait()
    await settle()
    for call in (stream.send_all(b"x"), stream.receive_some(), stream.send_eof()):
        with pytest.raises(trio.BrokenResourceError):
            await call
    assert stream.was_reset
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError if here else trio.BrokenResourceError):
        await muxer.open()
    with pytest.raises(trio.ClosedResourceError if here else trio.EndOfChannel):
        await muxer.accept()
    await muxer.aclose()
    assert muxer.stream_count == 0


async def breaks(call: Callable[[], object]) -> None:
    with pytest.raises(trio.BrokenResourceError):
        await call()  # type: ignore[misc]  # any awaitable


async def clogged(stream: MuxedStream) -> int:
    """Send until nothing more is taken, without tearing anything; how many bytes."""
    while True:
        await settle()
        room = PIECE_BYTES - stream._unsent
        if not room:
            return stream.bytes_out
        await stream.send_all(bytes(room))
