"""Hive's own end of a connection to a stock peer: its transport and overlay host, with these services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from hived.overlay.connection import Connection
from hived.overlay.host import Host
from hived.overlay.identify import IDENTIFY, PING, IdentifyService, serve_ping
from hived.overlay.membership import MEMBER
from tests.integration.nodes import free_port
from tests.integration.peer import peer
from tests.interop.services import Services


@dataclass(frozen=True)
class End:
    """``address`` is where it listens, its peer ID included."""

    host: Host
    services: Services
    protocol: str

    @property
    def peer_id(self) -> str:
        return self.host.identity.peer_id

    @property
    def address(self) -> str:
        return f"{self.host.listening[0]}/p2p/{self.peer_id}"

    def name(self, service: str) -> str:
        return self.protocol.replace("*", service)


def _admit(connection: Connection) -> None:
    """Who has joined nothing gets 16 streams; what counts here is how a member's connection works."""
    connection.memberships.add("interop")
    connection.muxer.set_limits(MEMBER)


@asynccontextmanager
async def hive_end(protocol: str) -> AsyncIterator[End]:
    """A running end; ``protocol`` with a star where the service's name goes."""
    async with peer() as running:
        host, services = running.host, Services()
        end = End(host, services, protocol)

        async def serve(service: Any, stream: Any, connection: Connection) -> None:
            await service(stream)

        for name, service in services.all().items():
            host.handlers[end.name(name)] = partial(serve, service)
        identify = IdentifyService(host.identity, lambda: host.listening, lambda: host.handlers)
        # Ping has a second name, for a peer that can be asked for streams below /x/ only.
        host.handlers |= {IDENTIFY: identify.serve, PING: serve_ping, end.name("ping"): serve_ping}
        host.on_connected.append(_admit)
        host.listen([f"/ip4/127.0.0.1/tcp/{free_port()}"])
        yield end
