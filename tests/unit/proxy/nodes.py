"""An egress and an ingress side with a real, sealed and muxed connection between them, no overlay."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from hived.errors import unreachable
from hived.overlay.connection import STREAM_ERRORS, Connection
from hived.overlay.networkkeys import network_id
from hived.overlay.wire import ProtocolError
from hived.proxy.egress import Overlay
from hived.proxy.header import PROXY
from hived.proxy.ingress import Ingress
from hived.transport.multistream import negotiate
from hived.transport.muxer import Muxer
from hived.transport.muxstream import MuxedStream
from hived.transport.plane import Plane
from tests.unit.transport.pairs import (
    muxers,
)

NETWORK, PEER = "net", "egress-peer"
SECONDS = 20.0


@dataclass(eq=False)
class Link:
    """What the overlay does for proxies: a connection to the other node, and who is a member.

    ``connected``: whether there is one already, else ``connect`` makes it, if the node is ``reachable``;
    without ``lasts`` it is gone when it is looked for.
    """

    near: Muxer
    far: Muxer
    ingress: Ingress = field(init=False)
    reachable: bool = True
    connected: bool = True
    lasts: bool = True
    connects: int = 0

    def __post_init__(self) -> None:
        self.ingress = Ingress(self.member, self.require, self.name)
        # Ingress asks a connection only for its peer ID, and egress its own for streams.
        self.connection = Connection(PEER, self.far, False, "/ip4/127.0.0.1/tcp/1", b"")
        self.outgoing = Connection("ingress-peer", self.near, True, "/ip4/127.0.0.1/tcp/1", b"")
        self.overlay = Overlay(self.plane, self.find, self.connect, self.name)

    @property
    def plane(self) -> Plane:
        return self.near.tunnel.plane

    def member(self, connection: Connection, wanted: bytes) -> str | None:
        return NETWORK if wanted == network_id(NETWORK) else None

    def require(self, connection: Connection, wanted: bytes, protocol: str) -> str:
        if wanted != network_id(NETWORK):
            raise ProtocolError("not a member")
        return NETWORK

    def name(self, peer_id: str) -> str:
        return f"name of {peer_id}"

    def find(self, peer_id: str, network: str) -> Connection | None:
        return self.outgoing if self.connected and self.reachable and self.lasts else None

    async def connect(self, peer_id: str, network: str) -> Connection:
        await trio.lowlevel.checkpoint()
        self.connects += 1
        if not self.reachable:
            raise unreachable("connecting failed", "no answer")
        self.connected = True
        return self.outgoing

    async def serve(self) -> None:
        """As the host does."""
        async with trio.open_nursery() as nursery:
            with contextlib.suppress(trio.EndOfChannel, trio.ClosedResourceError):
                while True:
                    nursery.start_soon(self._serve, await self.far.accept())

    async def _serve(self, stream: MuxedStream) -> None:
        try:
            await negotiate(stream, [PROXY])
            await self.ingress.serve(stream, self.connection)
            await stream.aclose()
        except STREAM_ERRORS:
            stream.reset()


@asynccontextmanager
async def link(*, at_once: bool = True, serves: bool = True, **limits: Any) -> AsyncIterator[Link]:
    """``at_once``: the other node joins a stream in the turn it came; else its trio negotiates each.

    Without ``serves`` nobody answers there: a test does.
    """
    with trio.fail_after(SECONDS):
        async with muxers(**limits) as (near, far), trio.open_nursery() as nursery:
            one = Link(near, far)
            if at_once and serves:
                far.greeter = partial(one.ingress.greet, one.connection)
            if serves:
                nursery.start_soon(one.serve)
            yield one
            nursery.cancel_scope.cancel()
