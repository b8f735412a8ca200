"""From the node's own objects to the API's rows."""

from __future__ import annotations

import time
from collections.abc import Set
from typing import cast

from ..overlay.connection import Connection
from ..overlay.dialer import circuit_address
from ..overlay.names import Names
from ..overlay.records import NodeRecord
from ..proxy.reconciler import Running
from ..schema import AddressState, Direction, NodeDetail, PathKind, Proxy, ProxyKind, ProxyState
from ..schema import Node as NodeRow
from .node import Node, rfc3339

# An author's clock may be a little ahead of this node's.
CLOCK_SECONDS = 60.0


def peers_connected(node: Node) -> int:
    """How many peers there is a connection to that can be used."""
    return len({c.peer_id for c in node.host.all_connections() if c.usable})


def status_line(node: Node) -> str:
    """The node in a few words, for ``systemctl status``."""
    networks = len(node.membership.keys)
    peers = peers_connected(node)
    proxies = [item for item in node.proxies.running.values() if item.row.enabled]
    failing = sum(item.state == "error" for item in proxies)
    line = f"networks: {networks}, peers connected: {peers}, proxies: {len(proxies)}"
    return f"{line} ({failing} failing)" if failing else line


def proxy_view(node: Node, item: Running, warning: str | None = None) -> Proxy:
    """One proxy as it should be and as it runs; ``warning`` None: what is in its way now."""
    row, counters = item.row, item.counters
    trouble = item.trouble
    if warning is None:
        warning = "" if trouble else in_the_way(node, item)
    return Proxy(
        id=row.id,
        direction=cast(Direction, row.direction),
        kind=cast(ProxyKind, row.kind),
        network=row.network,
        peer_id=row.peer_id,
        peer_name=node.names().shown(row.peer_id),
        port=row.port,
        peer_port=row.peer_port,
        bind=row.bind,
        to=row.target,
        state=cast(ProxyState, item.state),
        error=trouble.why if trouble else None,
        error_at=rfc3339(trouble.at) if trouble else None,
        connections=counters.connections,
        connections_total=counters.total,
        bytes_in=counters.bytes_in,
        bytes_out=counters.bytes_out,
        warning=warning,
    )


def in_the_way(node: Node, item: Running) -> str:
    """Why a connection through a proxy would fail now, before one has been tried; else empty."""
    peer_id = item.row.peer_id
    if not item.row.enabled:
        return ""
    shown = node.names().shown(peer_id) or peer_id
    if node.book.is_blocked(peer_id):
        return f"{shown} is blocked here: hivectl nodes unblock {shown}"
    if node.host.find(peer_id, item.row.network) is None:
        known = node.peers.links.get(peer_id)
        return f"{shown} is not connected" + (f": {known.error}" if known and known.error else "")
    return ""


def path_of(node: Node, peer_id: str, network: str | None) -> tuple[PathKind, Connection | None]:
    """How a peer is reached now."""
    if peer_id == node.identity.peer_id:
        return "self", None
    connection = node.host.find(peer_id, network)
    if connection is None or not connection.usable:
        return "none", None
    return ("direct" if connection.relay is None else "relayed"), connection


def last_contact_here(node: Node, peer_id: str) -> float | None:
    """When this node last heard from a member by itself, epoch seconds."""
    if peer_id == node.identity.peer_id:
        return time.time()
    stored = node.book.peer(peer_id)
    heard = [c.heard for c in node.host.connections.get(peer_id, ()) if c.usable]
    times = [t for t in (node.peers.contacts.get(peer_id), stored.last_contact, *heard) if t]
    return max(times, default=None)


def _milliseconds(seconds: float | None) -> float | None:
    return round(seconds * 1000, 2) if seconds is not None else None


def _silent(connection: Connection | None) -> float | None:
    seconds = connection.muxer.silent if connection else None
    return round(seconds, 1) if seconds is not None else None


def node_rows(node: Node, network: str) -> list[NodeRow]:
    """Every node known in a network: this one first, then by name."""
    names = node.names()
    records: dict[str, NodeRecord | None] = {r.peer_id: r for r in node.sync.visible(network)}
    for peer_id, registered in node.book.registrations:
        if registered == network:
            records.setdefault(peer_id, None)
    rows = [_row(node, names, peer_id, network, record) for peer_id, record in records.items()]
    return sorted(rows, key=lambda row: (row.path != "self", row.name or "~", row.peer_id))


def blocked_rows(node: Node, listed: Set[str]) -> list[NodeRow]:
    """The blocked nodes besides those ``listed``: of no network, so that they can be found and unblocked."""
    names = node.names()
    return [_row(node, names, peer, "", None) for peer in sorted(set(node.book.blocked()) - listed)]


def _row(node: Node, names: Names, peer_id: str, network: str, record: NodeRecord | None) -> NodeRow:
    path, connection = path_of(node, peer_id, network)
    stored = node.book.peer(peer_id)
    return NodeRow(
        peer_id=peer_id,
        name=names.shown(peer_id),
        network=network,
        path=path,
        relay=connection.relay if connection else None,
        rtt_ms=_milliseconds(connection.muxer.rtt if connection else None),
        silent=_silent(connection),
        latest_contact=_latest(last_contact_here(node, peer_id), record),
        version=record.version if record else "",
        addresses=record.addresses if record else node.book.addresses.get(peer_id, []),
        alias=stored.alias,
        blocked=stored.blocked,
    )


def _latest(contact: float | None, record: NodeRecord | None) -> str | None:
    """The last contact that is known of. An author's clock may be wrong by years: the future is none."""
    issued = record.issued if record and record.issued <= time.time() + CLOCK_SECONDS else None
    return rfc3339(max([t for t in (contact, issued) if t], default=None))


def node_detail(node: Node, peer_id: str) -> NodeDetail:
    """All that is known of one node."""
    networks = sorted(
        n for n in node.membership.keys if node.knows(peer_id, n) or peer_id == node.identity.peer_id
    )
    records = [r for r in (node.sync.get(n, peer_id) for n in networks) if r is not None]
    record = max(records, key=lambda r: r.issued, default=None)
    path, connection = path_of(node, peer_id, None)
    link = node.peers.links.get(peer_id)
    addresses = dict.fromkeys(node.book.addresses.get(peer_id, []), "user")
    addresses |= {address: "record" for r in records for address in r.addresses}
    addresses |= {circuit_address(relay): "record" for relay in node.paths.relays_of(peer_id)}
    if connection is not None and connection.relay is None:
        addresses.setdefault(connection.address, "connection")
    stored = node.book.peer(peer_id)
    here = last_contact_here(node, peer_id)
    rtt = connection.muxer.rtt if connection else None
    problems = [*(link.join_errors.values() if link else ()), *([link.error] if link and link.error else ())]
    return NodeDetail(
        peer_id=peer_id,
        name=node.names().shown(peer_id),
        alias=stored.alias,
        blocked=stored.blocked,
        networks=networks,
        path=path,
        relay=connection.relay if connection else None,
        rtt_ms=_milliseconds(rtt),
        silent=_silent(connection),
        latest_contact=_latest(here, record),
        last_contact_here=rfc3339(here),
        record_issued=rfc3339(record.issued) if record else None,
        version=record.version if record else "",
        addresses=[
            AddressState(address=a, source=s, last_error=link.errors.get(a) if link else None)
            for a, s in addresses.items()
        ],
        last_error=problems[0] if problems else None,
        relay_name=node.names().shown(connection.relay) if connection and connection.relay else None,
        why=node.paths.why(peer_id, connection) if peer_id != node.identity.peer_id else "",
    )
