"""``hivectl status``: the node at a glance."""

from __future__ import annotations

import click

from hivectl import output, report
from hivectl.commands.proxy import table as proxy_table
from hivectl.options import Command, Settings
from hived.schema import Service, Status


@click.command(cls=Command)
@click.option("--watch", is_flag=True, help="Go on, and print it again after each change.")
@click.pass_obj
def status(settings: Settings, watch: bool) -> None:
    """Show this node at a glance: networks, peers, proxies, and what is wrong."""
    report.fetch(settings, "/v1/status", Status, show, watch=watch)


def show(status: Status) -> None:
    """The overview: one line a fact, then the proxies."""
    service = status.service
    networks = [
        f"{row.name}: {output.count(row.members, 'other node')}, {row.connected} connected"
        for row in status.networks
    ]
    output.pairs(
        [
            ("name", status.name),
            ("peer_id", status.peer_id),
            ("version", f"hived {status.version}, up {output.duration(status.uptime)}"),
            ("reachability", _REACHABILITY.get(status.reachability, status.reachability)),
            ("addresses", status.addresses or ["none"]),
            ("networks", networks or ["none: hivectl networks create NAME, or join NAME"]),
            ("peers", f"{status.peers} connected"),
            ("proxies", _proxies(status)),
            ("service", _service(service)),
            ("data", service.data_dir),
            ("socket", service.socket),
            *(("warning", warning) for warning in status.warnings),
        ]
    )
    if status.proxies:
        print()
        output.show(proxy_table(status.proxies))


def _service(service: Service) -> str:
    """How it runs: by systemd's word where there is one."""
    process = f"pid {service.pid}, user {service.user}"
    unit = service.unit
    if unit is None:
        return f"{service.manager}, {process}"
    words = [f"{unit.name}: {unit.state}, {unit.enabled}", process]
    words.append(f"restarted {output.count(unit.restarts, 'time')}")
    words.append(f"watchdog {output.duration(unit.watchdog)}" if unit.watchdog else "no watchdog")
    return ", ".join(words)


_REACHABILITY = {"unknown": "unknown (hivectl netcheck says what is missing)"}


def _proxies(status: Status) -> str:
    """How many proxies are in each state, the bad ones first."""
    counts = {}
    for state in ("error", "listening", "ready", "disabled"):
        count = sum(proxy.state == state for proxy in status.proxies)
        if count:
            counts[state] = count
    return ", ".join(f"{count} {state}" for state, count in counts.items()) or "none"
