"""Calls about this node itself: info, identity, status, its name."""

from __future__ import annotations

import os
import pwd

from .. import __version__
from ..errors import conflict, several
from ..overlay.addresses import is_private
from ..overlay.identity import relay_of
from ..schema import Done, Identity, Info, NetworkRow, Reloaded, Rename, Service, Status
from ..store.proxies import ProxyRow
from .auth import Caller
from .calls_rekey import not_moved
from .calls_rekey import troubles as rekey_troubles
from .node import Node, rfc3339
from .views import in_the_way, peers_connected, proxy_view


async def info(node: Node, caller: Caller) -> Info:
    """What any member, and any local user, may know of this node."""
    networks = sorted(node.membership.keys)
    if caller.peer_id is not None:
        # A member learns of the networks that it is in, and of no other.
        proved = {n for c in node.host.connections.get(caller.peer_id, ()) for n in c.memberships}
        networks = [name for name in networks if name in proved]
    return Info(
        peer_id=node.identity.peer_id,
        name=node.name(),
        version=__version__,
        uptime=node.uptime,
        networks=networks,
    )


async def identity(node: Node, caller: Caller) -> Identity:
    """The identity string, to be registered on other nodes."""
    addresses = node.paths.identity_addresses()
    warnings = []
    if not addresses:
        warnings.append("this node listens nowhere: others cannot dial it")
    elif all(relay_of(address) is None and is_private(address) for address in addresses):
        warnings.append(
            "only private addresses are in it: nodes of other sites cannot dial this one"
            " (a public address or DNS name can be named with hived --announce)"
        )
    return Identity(
        peer_id=node.identity.peer_id,
        name=node.name(),
        identity=node.identity.string(addresses),
        addresses=addresses,
        warnings=warnings,
    )


async def status(node: Node, caller: Caller) -> Status:
    """The node at a glance."""
    euid = os.geteuid()
    try:
        user = pwd.getpwuid(euid).pw_name
    except KeyError:
        user = str(euid)
    warnings = []
    if not node.membership.keys:
        warnings.append(
            "this node is in no network yet: hivectl networks create NAME, or hivectl networks join NAME"
        )
    warnings += node.misconfigured()
    warnings += _troubles(node)
    unit = await node.unit()
    warnings += [
        f"{name} has failed, and hived does not have its ports: systemctl status {name} says why"
        f" (does another server have one?); then: systemctl restart hived"
        for name in (unit.failed_sockets if unit else ())
    ]
    return Status(
        peer_id=node.identity.peer_id,
        name=node.name(),
        version=__version__,
        uptime=node.uptime,
        addresses=node.addresses(),
        reachability=node.paths.reachability.state,
        networks=network_rows(node),
        peers=peers_connected(node),
        proxies=[proxy_view(node, item) for item in node.proxies.running.values()],
        service=Service(
            manager="systemd" if node.is_service() else "none",
            pid=os.getpid(),
            data_dir=str(node.config.data_dir),
            socket=str(node.config.socket),
            user=user,
            unit=unit,
        ),
        warnings=warnings,
    )


def _troubles(node: Node) -> list[str]:
    """What is wrong now, a line each: peers that refuse us or are missed by a proxy, proxies that fail."""
    found = []
    names = node.names()
    if node.sync.author.has_twin:
        found.append(
            "another hived runs with this node's identity: stop one of the two"
            " (to move a node: hivectl backup, stop it for good, hivectl restore)"
        )
    if node.probation.since is not None:
        found.append(
            f"restored from a backup at {rfc3339(node.probation.since)}: the original must not run any more;"
            " if a network was rekeyed since the backup: hivectl networks rekey NETWORK --join"
        )
    found += [line for network in node.membership.keys for line in rekey_troubles(node, network)]
    for link in node.peers.links.values():
        shown = names.shown(link.peer_id) or link.peer_id
        found += [
            f"{network}: {shown} refuses us: {why}; if the network was rekeyed, whoever lacks the new"
            f" password types: hivectl networks rekey {network} --join"
            for network, why in link.join_errors.items()
        ]
    if idle := node.proxies.idle_ports():
        ports = several([str(port) for port in idle], 10)
        rows = [item.row for item in node.proxies.running.values() if item.row.direction == "egress"]
        off = [row.id for row in rows if row.port in idle and not row.enabled]
        cure = f"enable {off[0]}" if off else f"add egress {idle[0]} NODE:PORT"
        found.append(
            f"a socket unit has opened {'ports' if len(idle) > 1 else 'port'} {ports} for hived, and no proxy"
            f" listens there, so whoever comes is turned away: hivectl proxy {cure}"
        )
    return found + _proxy_troubles(node)


def _proxy_troubles(node: Node) -> list[str]:
    """A line for each proxy that fails, and one for each node that proxies miss, however many do."""
    found = []
    missed: dict[str, list[ProxyRow]] = {}
    for item in node.proxies.running.values():
        away = in_the_way(node, item)
        if away and not item.error:
            # Also where connections have failed: it is why they did.
            missed.setdefault(away, []).append(item.row)
        elif item.row.enabled and (trouble := item.trouble):
            found.append(f"proxy {item.row.id}: {trouble.why}")
    for why, rows in missed.items():
        # Several proxies may share a port: here, of different nodes or networks.
        ports = [str(port) for port in sorted({row.port for row in rows})]
        lead = f"proxies on ports {several(ports, 10)}" if len(rows) > 1 else f"proxy {rows[0].id}"
        found.append(f"{lead}: {why}")
    return found


def network_rows(node: Node) -> list[NetworkRow]:
    """The networks with how many members are known and connected, this node not counted."""
    return [
        NetworkRow(
            name=name,
            members=sum(r.peer_id != node.identity.peer_id for r in node.sync.visible(name)),
            connected=len(node.membership.members(name)),
            created=rfc3339(node.book.created.get(name, 0.0)) or "",
            rekey_until=rfc3339(rekeying.until) if (rekeying := node.rekeys.running.get(name)) else None,
            not_moved=not_moved(node, name),
        )
        for name in sorted(node.membership.keys)
    ]


async def reload(node: Node, caller: Caller) -> Reloaded:
    """Have the node read its configuration again, as after SIGHUP."""
    need_restart = await node.reload()
    return Reloaded(need_restart=need_restart, file=str(node.config.config) if node.config.config else None)


async def rename(node: Node, caller: Caller, body: Rename) -> Done:
    """Give this node another name; members learn it at once."""
    if body.name == node.name():
        return Done(note="that is its name already")
    taken = node.book.owners.get(body.name)
    if taken is not None and taken != node.identity.peer_id:
        raise conflict(
            f"renaming this node to {body.name} failed", f"node {taken} has that name", "Choose another"
        )
    await node.rename(body.name)
    return Done()
