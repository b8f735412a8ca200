"""``hivectl netcheck``: what this network allows."""

from __future__ import annotations

import ipaddress

import click

from hivectl import output, report
from hivectl.options import Command, Settings
from hived.schema import Netcheck

_NATS = {
    "public": "none in the way: others dial this node",
    "cone": "a NAT or firewall that keeps one mapping for all (cone)",
    "symmetric": "a NAT with another mapping for each peer (symmetric)",
    "offline": "unknown: no member is connected",
    "unknown": "unknown: two members at different places are needed to tell",
}
_ON_THIS_NETWORK = "none in the way on this network: members here dial this node; nobody outside has told"


def _is_local(check: Netcheck) -> bool:
    """Whether only private addresses were reached: by neighbours, that is."""
    hosts = [address.split("/")[2] for address in check.reached]
    return bool(hosts) and all(map(_is_private, hosts))


def _is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return False


@click.command(cls=Command)
@click.pass_obj
def netcheck(settings: Settings) -> None:
    """Measure what this network allows: NAT, relays, discovery on the LAN, hole punching."""
    report.fetch(settings, "/v1/netcheck", Netcheck, show)


def show(check: Netcheck) -> None:
    """One line a fact."""
    families = [name for name, has in (("IPv4", check.ipv4), ("IPv6", check.ipv6)) if has]
    relays = [
        f"{row.name or row.peer_id}: "
        + ("reserved" if row.reserved else row.error or "usable")
        + (f", {row.rtt_ms:.1f} ms" if row.rtt_ms is not None else "")
        for row in check.relays
    ]
    mdns = f"on, {output.count(check.mdns, 'member')} found" if check.mdns_on else "off"
    output.pairs(
        [
            ("addresses", " and ".join(families) or "none"),
            ("nat", _ON_THIS_NETWORK if _is_local(check) else _NATS.get(check.nat, check.nat)),
            ("asked", f"{output.count(check.asked, 'member')} told how they see this node"),
            ("reached_on", check.reached or ["none"]),
            ("seen_as", check.seen_as or ["not known"]),
            ("relays", relays or ["none is connected"]),
            ("relays_for", {"off": "nobody", "members": "members", "anyone": "anyone"}[check.relaying]),
            ("mdns", mdns),
            ("hole_punching", f"{check.hole_punching}: {check.why}"),
        ]
    )
