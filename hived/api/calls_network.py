"""Calls about networks and the nodes in them."""

from __future__ import annotations

from dataclasses import replace

import trio

from ..errors import HiveError, Kind, conflict, denied, not_found, usage
from ..overlay.identity import parse_identity
from ..overlay.networkkeys import derive_key, generate_password
from ..proxy.reconciler import Running
from ..schema import (
    CreateNetwork,
    Done,
    NetworkCreated,
    NetworkRow,
    NodeDetail,
    Registered,
    RegisterRequest,
    SetAlias,
)
from ..schema import Node as NodeRow
from ..store.networks import Registration
from ..transport.muxstream import MuxedStream
from . import remote
from .auth import Caller
from .calls_rekey import weakness
from .calls_status import network_rows
from .node import Node
from .views import blocked_rows, node_detail, node_rows


async def networks(node: Node, caller: Caller) -> list[NetworkRow]:
    """The networks that this node is in."""
    return network_rows(node)


async def create_network(node: Node, caller: Caller, body: CreateNetwork) -> NetworkCreated:
    """Create a network or join one by its name and password; without a password one is generated."""
    password = body.password or generate_password()
    _refuse_twice(node, body.name)
    key = await trio.to_thread.run_sync(derive_key, body.name, password)
    async with node.changes:
        _refuse_twice(node, body.name)
        kept = await node.networks.add(body.name, key)
        node.book.created[kept.name] = kept.created
        node.membership.set_network(kept.name, kept.key)
    await node.publish()
    node.peers.refresh()
    node.peers.kick()
    node.notify()
    return NetworkCreated(
        name=kept.name, password=None if body.password else password, warning=weakness(body.password)
    )


async def leave_network(node: Node, caller: Caller, name: str) -> Done:
    """Leave a network: its records and registrations go, its memberships end. Its proxies must go first."""
    async with node.changes:
        node.require_network(name)
        if not caller.is_local and not _is_elsewhere(node, caller, name):
            raise usage(
                f"leaving {name} failed",
                "this very call comes through it, and the answer would be lost",
                "Type it on that node itself",
            )
        _refuse_if_proxied(
            f"leaving {name}", [i for i in node.proxies.running.values() if i.row.network == name]
        )
        await node.networks.remove(name)
        node.membership.drop_network(name)
        node.sync.drop_network(name)
        node.rekeys.forget(name)
        node.book.leave(name)
        await node.proxies.reconcile()
    node.peers.refresh()
    node.notify()
    return Done()


def _is_elsewhere(node: Node, caller: Caller, network: str) -> bool:
    """Whether a caller over the overlay shares another network with this node."""
    connections = node.host.connections.get(caller.peer_id or "", ())
    return any(connection.memberships - {network} for connection in connections)


async def register(node: Node, caller: Caller, body: RegisterRequest) -> Registered:
    """Take a node's identity string, dial it, and join the network through it."""
    peer = parse_identity(body.identity)
    what = f"registering {peer.peer_id} failed"
    if peer.peer_id == node.identity.peer_id:
        raise usage(what, "that is this node's own identity", "Copy the other node's: hivectl id --base64")
    if node.book.is_blocked(peer.peer_id):
        raise denied(what, "the node is blocked", f"Unblock it: hivectl nodes unblock {peer.peer_id}")
    network = node.pick_network(body.network, peer.peer_id)
    key = (peer.peer_id, network)
    before = (node.book.registrations.get(key), node.book.addresses.get(peer.peer_id, []))
    await _register(node, key, Registration(*key, 0), list(peer.addresses))
    node.peers.refresh()
    node.peers.kick(peer.peer_id, forgive=True)
    try:
        await node.peers.connection(peer.peer_id, network)
    except HiveError as error:
        if error.kind is Kind.DENIED:
            # The wrong password, or the wrong node: what was before stays.
            await _register(node, key, *before)
            node.peers.refresh()
            raise HiveError(error.kind, what, error.why, error.hint) from error
        return Registered(peer_id=peer.peer_id, network=network, state="pending", detail=error.why)
    finally:
        node.notify()
    return Registered(peer_id=peer.peer_id, network=network, state="joined")


async def _register(
    node: Node, key: tuple[str, str], registration: Registration | None, addresses: list[str]
) -> None:
    async with node.changes:
        node.require_network(key[1])
        await node.peer_store.set_addresses(key[0], addresses)
        node.book.addresses[key[0]] = addresses
        if registration is None:
            await node.networks.unregister(*key)
            node.book.registrations.pop(key, None)
        else:
            await node.networks.register(*key, registration.refused)
            node.book.registrations[key] = registration


def _refuse_twice(node: Node, name: str) -> None:
    if name in node.membership.keys:
        raise conflict(
            f"adding network {name} failed",
            "this node is in a network of that name already",
            f"For a new password: hivectl networks rekey {name} --join; to go: hivectl networks leave {name}",
        )


async def nodes(node: Node, caller: Caller, *, network: str = "") -> list[NodeRow]:
    """The nodes known in each network, this one first; last, of no network, blocked ones that are in none."""
    names = [node.require_network(network)] if network else sorted(node.membership.keys)
    rows = [row for name in names for row in node_rows(node, name)]
    return rows if network else rows + blocked_rows(node, {row.peer_id for row in rows})


async def show_node(node: Node, caller: Caller, node_ref: str) -> NodeDetail:
    """All that is known of one node."""
    return node_detail(node, _known(node, node_ref))


async def forget_node(node: Node, caller: Caller, node_ref: str) -> Done:
    """Hide a node until it publishes something newer, and drop its alias and registrations."""
    peer_id = _other(node, node_ref, "forgetting")
    _refuse_if_proxied(
        f"forgetting {node_ref}", [i for i in node.proxies.running.values() if i.row.peer_id == peer_id]
    )
    await node.peer_store.forget(peer_id)
    await node.sync.hide(peer_id)
    node.book.forget(peer_id)
    node.host.close_peer(peer_id)
    node.peers.refresh()
    node.notify()
    return Done()


async def set_alias(node: Node, caller: Caller, node_ref: str, body: SetAlias) -> Done:
    """Give a node a name of one's own; null takes it away."""
    peer_id = _known(node, node_ref)
    if body.alias is not None:
        holder = node.names()
        taken = [p for p in holder.claimed if p != peer_id and holder.shown(p) == body.alias]
        if taken:
            raise conflict(
                f"setting alias {body.alias} failed", f"node {taken[0]} has that name", "Choose another"
            )
    await node.peer_store.set_alias(peer_id, body.alias)
    node.book.peers[peer_id] = replace(node.book.peer(peer_id), alias=body.alias)
    node.notify()
    return Done()


async def block_node(node: Node, caller: Caller, node_ref: str) -> Done:
    """Turn a node away: its connections are cut now, and refused from now on."""
    peer_id = _other(node, node_ref, "blocking")
    if peer_id == caller.peer_id:
        raise usage(
            f"blocking {node_ref} failed",
            "that is the node that this call comes from",
            "Type it on the other node itself",
        )
    shared = sorted(n for n in node.membership.keys if node.knows(peer_id, n)) or ["NETWORK"]
    commands = ", ".join(f"hivectl networks rekey {name}" for name in shared)
    await _set_blocked(node, peer_id, True)
    return Done(
        note="It keeps the network's password: to shut it out of other nodes too, change that with"
        f" {commands}. Until the grace time ends it stays in on those; --now leaves it none"
    )


async def unblock_node(node: Node, caller: Caller, node_ref: str) -> Done:
    """Let a blocked node in again."""
    peer_id = _other(node, node_ref, "unblocking")
    if not node.book.is_blocked(peer_id):
        return Done(note="It was not blocked")
    await _set_blocked(node, peer_id, False)
    return Done()


async def _set_blocked(node: Node, peer_id: str, blocked: bool) -> None:
    await node.peer_store.set_blocked(peer_id, blocked)
    node.book.peers[peer_id] = replace(node.book.peer(peer_id), blocked=blocked)
    if blocked:
        node.host.close_peer(peer_id)
    node.peers.refresh()
    node.peers.kick(peer_id)
    node.notify()


async def tunnel(node: Node, caller: Caller, node_ref: str, *, network: str = "") -> tuple[str, MuxedStream]:
    """The API of another node: its peer ID and the stream that carries it."""
    if not caller.is_local:
        raise denied(
            "opening a tunnel failed",
            "a remote caller cannot go on from here",
            "Call the other node from your own",
        )
    peer_id = _other(node, node_ref, "reaching")
    if node.book.is_blocked(peer_id):
        raise denied(
            f"reaching {node_ref} failed",
            "it is blocked here",
            f"Unblock it: hivectl nodes unblock {node_ref}",
        )
    shared = sorted(n for n in node.membership.keys if node.knows(peer_id, n))
    # The API is the same through any network that both are in.
    chosen = node.pick_network(network or (shared[0] if shared else None), peer_id)
    return peer_id, await remote.open_api(node, peer_id, chosen)


def _refuse_if_proxied(doing: str, items: list[Running]) -> None:
    """Nobody loses proxies by another command than ``proxy rm``."""
    if items:
        used = ", ".join(str(item.row.id) for item in items)
        raise conflict(f"{doing} failed", f"proxies use it: {used}", "Remove them first: hivectl proxy rm ID")


def _known(node: Node, text: str) -> str:
    peer_id = node.resolve(text)
    names = node.names()
    if peer_id not in names.claimed and peer_id not in names.aliases and peer_id not in node.book.peers:
        raise not_found(f"finding node {text} failed", "no such node is known here", "See hivectl nodes")
    return peer_id


def _other(node: Node, text: str, doing: str) -> str:
    peer_id = node.resolve(text)
    if peer_id == node.identity.peer_id:
        raise usage(
            f"{doing} {text} failed", "that is this node itself", "Name another node, or leave --node away"
        )
    return peer_id
