"""Calls about proxies, and temporary forwards."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Awaitable, Callable

import trio

from ..errors import not_found, usage
from ..proxy.egress import EgressProxy, Route
from ..proxy.reconciler import Running
from ..schema import AddProxy, Done, ForwardEvent, ForwardRequest, Proxy
from ..store.proxies import ProxyRow
from .auth import Caller
from .node import Node
from .views import proxy_view

# RFC 1123, 2.1, and "_", which names of containers have. A resolver may even refuse to look at what is none.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
LOOPBACK = "127.0.0.1"
OPEN = (
    "port {port} is open on {where}: everybody who reaches it gets through"
    " (--bind 127.0.0.1 keeps it to this machine)"
)


async def proxies(node: Node, caller: Caller) -> list[Proxy]:
    """All proxies with their states and counters."""
    return [proxy_view(node, item) for item in node.proxies.running.values()]


async def add_proxy(node: Node, caller: Caller, body: AddProxy) -> Proxy:
    """Add a proxy and start it. The two ends may be made in either order."""
    what = f"adding the {body.direction} proxy failed"
    peer_id = _peer(node, body.peer, what)
    network = node.pick_network(body.network, peer_id)
    if body.direction == "egress" and body.to is not None:
        raise usage(what, "--to is for ingress proxies", "An egress proxy leads to PEER:PORT")
    if body.direction == "ingress" and body.bind is not None:
        raise usage(what, "--bind is for egress proxies", "An ingress proxy has a target: --to HOST")
    if body.bind is not None:
        _check_ip(body.bind, what)
    if body.to is not None:
        _check_host(body.to, what)
    row = ProxyRow(
        0, body.direction, body.kind, network, peer_id, body.port, body.peer_port, body.bind, body.to, True
    )
    async with node.changes:
        node.require_network(network)
        item = await node.proxies.add(row)
    node.peers.refresh()
    node.peers.kick(peer_id)
    warning = ""
    if body.direction == "egress" and body.bind is None:
        warning = OPEN.format(port=body.port, where="all addresses of this machine")
    if not node.knows(peer_id, network):
        warning = f"{body.peer} is not known in {network} yet; register it there: hivectl register ID"
    return proxy_view(node, item, warning)


async def show_proxy(node: Node, caller: Caller, proxy_id: str) -> Proxy:
    """One proxy."""
    return proxy_view(node, _find(node, proxy_id))


async def remove_proxy(node: Node, caller: Caller, proxy_id: str) -> Done:
    """Remove a proxy: its listener stops and its live connections are cut."""
    await node.proxies.remove(_find(node, proxy_id).row.id)
    node.peers.refresh()
    return Done()


async def enable_proxy(node: Node, caller: Caller, proxy_id: str) -> Proxy:
    """Start a disabled proxy again."""
    return proxy_view(node, await node.proxies.enable(_find(node, proxy_id).row.id, True))


async def disable_proxy(node: Node, caller: Caller, proxy_id: str) -> Proxy:
    """Stop a proxy, cut its live connections, and keep it for later."""
    return proxy_view(node, await node.proxies.enable(_find(node, proxy_id).row.id, False))


async def forward(
    node: Node, caller: Caller, body: ForwardRequest, *, emit: Callable[[ForwardEvent], Awaitable[None]]
) -> None:
    """A temporary egress proxy on loopback, for as long as the caller stays connected."""
    what = f"forwarding port {body.port} failed"
    peer_id = _peer(node, body.peer, what)
    network = node.pick_network(body.network, peer_id)
    bind = body.bind or LOOPBACK
    _check_ip(bind, what)
    sockets = node.proxies.bind(bind, body.port)
    events, problems = trio.open_memory_channel[str](16)

    def report(why: str) -> None:
        # A caller that does not read misses the repetition.
        with contextlib.suppress(trio.WouldBlock):
            events.send_nowait(why)

    route = Route(network, peer_id, body.port, body.peer_port)
    proxy = EgressProxy(route, sockets, node.proxies.overlay, on_event=report)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.run)
        await emit(
            ForwardEvent(
                event="listening",
                bind=bind,
                port=body.port,
                peer_id=peer_id,
                origin=node.identity.peer_id,
                detail="" if _is_loopback(bind) else OPEN.format(port=body.port, where=bind),
            )
        )
        async for why in problems:
            await emit(ForwardEvent(event="error", port=body.port, peer_id=peer_id, detail=why))


def _peer(node: Node, text: str, what: str) -> str:
    peer_id = node.resolve(text)
    if peer_id == node.identity.peer_id:
        raise usage(what, "the peer is this node itself", "Name the node at the other end")
    return peer_id


def _find(node: Node, text: str) -> Running:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise not_found(f"finding proxy {text} failed", "a proxy's ID is a number", "See hivectl proxy")
    return node.proxies.get(int(text))


def _is_loopback(text: str) -> bool:
    return ipaddress.ip_address(text).is_loopback


def _check_ip(text: str, what: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise usage(what, f"{text!r} is no IP address", "Write for example --bind 127.0.0.1") from None


def _check_host(text: str, what: str) -> None:
    if not _HOST.fullmatch(text) and not _is_ip(text):
        raise usage(
            what,
            f"{text!r} is no host name (1 to 63 letters, digits, - or _ between dots) and no IP address",
            "Write for example --to db.example or --to 192.0.2.7",
        )


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
