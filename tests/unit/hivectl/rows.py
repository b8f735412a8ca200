"""Documents as hived's API answers them, for hivectl's tests."""

from __future__ import annotations

from typing import Any

from tests.unit.hivectl.server import LOCAL, REMOTE


def node(**changes: Any) -> dict[str, Any]:
    """A row of GET /v1/nodes."""
    row = {
        "peer_id": REMOTE,
        "name": "far",
        "network": "lab",
        "path": "direct",
        "relay": None,
        "rtt_ms": 1.25,
        "latest_contact": "2026-01-02T03:04:05Z",
        "version": "0.1.0",
        "addresses": ["/ip4/192.0.2.7/tcp/4483"],
        "alias": None,
        "blocked": False,
    }
    return row | changes


def proxy(**changes: Any) -> dict[str, Any]:
    """A row of GET /v1/proxies."""
    row = {
        "id": 3,
        "direction": "egress",
        "kind": "tcp",
        "network": "lab",
        "peer_id": REMOTE,
        "peer_name": "far",
        "port": 8084,
        "peer_port": 1984,
        "bind": None,
        "to": None,
        "state": "listening",
        "error": None,
        "error_at": None,
        "connections": 1,
        "connections_total": 7,
        "bytes_in": 2048,
        "bytes_out": 12,
        "warning": "",
    }
    return row | changes


def status(**changes: Any) -> dict[str, Any]:
    """The answer of GET /v1/status."""
    row = {
        "peer_id": LOCAL,
        "name": "near",
        "version": "0.1.0",
        "uptime": 90061.0,
        "addresses": ["/ip4/192.0.2.1/tcp/4483"],
        "reachability": "private",
        "networks": [{"name": "lab", "members": 3, "connected": 2, "created": "2026-01-01T00:00:00Z"}],
        "peers": 2,
        "proxies": [proxy()],
        "service": {
            "manager": "systemd",
            "pid": 7,
            "data_dir": "/var/lib/hive",
            "socket": "/run/hive/control.sock",
            "user": "hive",
        },
        "warnings": [],
    }
    return row | changes


def ping(**changes: Any) -> dict[str, Any]:
    """The answer of POST /v1/nodes/NODE/ping."""
    row = {
        "peer_id": REMOTE,
        "name": "far",
        "path": "direct",
        "relay": None,
        "relay_name": None,
        "rtt_ms": 1.5,
    }
    return row | changes


def netcheck(**changes: Any) -> dict[str, Any]:
    """The answer of GET /v1/netcheck."""
    relay = {"peer_id": REMOTE, "name": "far", "reserved": True, "rtt_ms": 1.25, "error": None}
    row = {
        "ipv4": True,
        "ipv6": False,
        "nat": "cone",
        "asked": 2,
        "reached": [],
        "seen_as": ["/ip4/192.0.2.7/tcp/4483"],
        "relays": [relay, {**relay, "name": "", "reserved": False, "rtt_ms": None, "error": "it is full"}],
        "relaying": "members",
        "mdns": 1,
        "mdns_on": True,
        "hole_punching": "likely",
        "why": "so it is",
    }
    return row | changes
