"""Calls about the ways to other nodes: a ping through the overlay, and what this network allows."""

from __future__ import annotations

import ipaddress
import secrets
import time

import trio

from ..errors import unreachable
from ..overlay.addresses import interface_addresses
from ..overlay.connection import STREAM_ERRORS, Connection
from ..overlay.identify import PING, PING_BYTES
from ..overlay.wire import receive_exactly
from ..schema import Netcheck, Ping, RelayRow
from .auth import Caller
from .node import Node

PING_SECONDS = 10.0


async def ping(node: Node, caller: Caller, node_ref: str) -> Ping:
    """One round trip to a node by the best path that there is now."""
    peer_id = node.resolve(node_ref)
    if peer_id == node.identity.peer_id:
        return Ping(peer_id=peer_id, name=node.name(), path="self", relay=None, relay_name=None, rtt_ms=0.0)
    network = node.pick_network(None, peer_id)
    connection = await node.peers.connection(peer_id, network)
    try:
        with trio.fail_after(PING_SECONDS):
            seconds = await _round_trip(connection)
    except (*STREAM_ERRORS, trio.TooSlowError) as error:
        gone = not connection.is_open
        raise unreachable(
            f"pinging {node_ref} failed",
            "the connection ended" if gone else str(error) or f"no answer within {PING_SECONDS:.0f} s",
            f"See hivectl nodes show {node_ref}",
        ) from None
    names = node.names()
    return Ping(
        peer_id=peer_id,
        name=names.shown(peer_id),
        path="direct" if connection.relay is None else "relayed",
        relay=connection.relay,
        relay_name=names.shown(connection.relay) if connection.relay else None,
        rtt_ms=round(seconds * 1000, 2),
    )


async def _round_trip(connection: Connection) -> float:
    stream = await connection.open_stream(PING)
    try:
        data = secrets.token_bytes(PING_BYTES)
        began = time.monotonic()
        await stream.send_all(data)
        if await receive_exactly(stream, PING_BYTES) != data:
            raise trio.BrokenResourceError("another answer than was asked for")
        return time.monotonic() - began
    finally:
        await stream.aclose()


async def netcheck(node: Node, caller: Caller) -> Netcheck:
    """What the network that this node is in allows, measured now."""
    paths = node.paths
    reports = await paths.reachability.measure()
    names = node.names()
    own = [ipaddress.ip_address(address) for address in interface_addresses()]
    families = {ip.version for ip in own if not ip.is_loopback}
    held = paths.reservations.held
    rows = []
    for candidate in paths.candidates():
        relay = candidate.connection.peer_id
        rtt = candidate.connection.muxer.rtt
        rows.append(
            RelayRow(
                peer_id=relay,
                name=names.shown(relay),
                reserved=relay in held,
                rtt_ms=round(rtt * 1000, 2) if rtt is not None else None,
                error=paths.reservations.errors.get(relay),
            )
        )
    state = paths.reachability.state
    likely, why = _punching(state)
    return Netcheck(
        ipv4=4 in families,
        ipv6=6 in families,
        nat=state,
        asked=len(reports),
        reached=paths.reachability.reached,
        seen_as=paths.reachability.mapped,
        relays=sorted(rows, key=lambda row: (not row.reserved, row.rtt_ms or 0.0)),
        relaying=paths.relay.mode,
        mdns=len(paths.discovery.found),
        mdns_on=paths.discovery.active,
        hole_punching=likely,
        why=why,
    )


def _punching(state: str) -> tuple[str, str]:
    """How likely a hole can be punched, and why."""
    return {
        "public": ("not needed", "others dial this node"),
        "cone": ("likely", "only with nodes behind a symmetric NAT it fails"),
        "symmetric": ("unlikely", "this NAT has another mapping for each peer; public nodes are dialled"),
        "offline": ("unknown", "no member is connected"),
    }.get(state, ("unknown", "fewer than two members at different places have told how they see this node"))
