"""An egress and an ingress side with a real muxed connection between them, no overlay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from hived.errors import unreachable
from hived.overlay.host import Connection
from hived.overlay.networkkeys import network_id
from hived.overlay.wire import ProtocolError
from hived.proxy.ingress import Ingress
from hived.transport.muxer import Muxer
from hived.transport.muxstream import MuxedStream
from tests.unit.proxy.tunnels import muxers

NETWORK, PEER = "net", "egress-peer"


@dataclass(eq=False)
class Link:
    """What the overlay does for proxies: streams to the other node, and who is a member."""

    near: Muxer
    far: Muxer
    ingress: Ingress = field(init=False)
    reachable: bool = True

    def __post_init__(self) -> None:
        self.ingress = Ingress(self.require)
        # Ingress asks a connection only for its peer ID.
        self.connection = Connection(PEER, self.far, False, "/ip4/127.0.0.1/tcp/1", b"")

    def require(self, connection: Connection, wanted: bytes, protocol: str) -> str:
        if wanted != network_id(NETWORK):
            raise ProtocolError("not a member")
        return NETWORK

    async def open_stream(self, peer_id: str, network: str, protocol: str) -> MuxedStream:
        if not self.reachable:
            raise unreachable("connecting failed", "no answer")
        return await self.near.open()

    async def serve(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._serve, await self.far.accept())

    async def _serve(self, stream: MuxedStream) -> None:
        # As the host does.
        try:
            await self.ingress.serve(stream, self.connection)
            await stream.aclose()
        except (ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            stream.reset()


@asynccontextmanager
async def link() -> AsyncIterator[Link]:
    async with muxers() as (near, far), trio.open_nursery() as nursery:
        one = Link(near, far)
        nursery.start_soon(one.serve)
        yield one
        nursery.cancel_scope.cancel()
