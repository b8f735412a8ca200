"""A running data plane for tests, and two muxers on it that are connected."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from hived.transport import planethread, suites
from hived.transport.limits import MuxLimits
from hived.transport.muxer import Muxer
from hived.transport.pipes import SocketPipe
from hived.transport.plane import Plane
from hived.transport.records import Opener, Sealer
from hived.transport.suites import Suite

THERE, BACK = b"there" * 6 + b"!!", b"back!" * 6 + b"!!"


@asynccontextmanager
async def plane() -> AsyncIterator[Plane]:
    """A data plane whose thread ends with the block."""
    made = Plane()
    async with planethread.running(made):
        yield made


def ends() -> tuple[socket.socket, socket.socket]:
    """A non-blocking pair of sockets."""
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


def muxer(
    running: Plane,
    sock: socket.socket,
    *,
    initiator: bool,
    limits: MuxLimits | None = None,
    suite: Suite = suites.NOISE,
) -> Muxer:
    """One end of a connection whose handshake is over, with keys that tests know."""
    mine, theirs = (THERE, BACK) if initiator else (BACK, THERE)
    return Muxer(
        running,
        SocketPipe(sock),
        Sealer(suite, mine),
        Opener(suite, theirs),
        initiator=initiator,
        limits=limits or MuxLimits(),
    )


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Muxer, Muxer]]:
    """Two running muxers, the initiator's first."""
    one, other = ends()
    async with plane() as running, trio.open_nursery() as nursery:
        opener, answerer = muxer(running, one, initiator=True), muxer(running, other, initiator=False)
        await nursery.start(opener.run)
        await nursery.start(answerer.run)
        yield opener, answerer
        nursery.cancel_scope.cancel()
