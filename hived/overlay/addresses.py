"""Multiaddrs: what they must look like, what a listener's mean for others.

Hive dials and listens on TCP: ``/ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT``.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import psutil
from multiaddr import Multiaddr

from ..errors import usage

MAX_ADDRESS_CHARS = 256
_HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")


@dataclass(frozen=True)
class Endpoint:
    """A TCP end point out of a multiaddr; ``host`` is an IP address or a DNS name."""

    kind: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"/{self.kind}/{self.host}/tcp/{self.port}"


def parse(text: str) -> Endpoint:
    """Read ``/ip4/…/tcp/PORT`` (a trailing ``/p2p/…`` is dropped). Raises ValueError."""
    if len(text) > MAX_ADDRESS_CHARS or not text.isascii():
        raise ValueError("it is too long or not ASCII")
    try:
        parts = [(protocol.name, value) for protocol, value in Multiaddr(text).items()]
    except Exception as error:  # the library raises several unrelated kinds
        raise ValueError(str(error)) from None
    if len(parts) == 3 and parts[2][0] == "p2p":
        parts.pop()
    if len(parts) != 2 or parts[0][0] not in _HOSTS or parts[1][0] != "tcp":
        raise ValueError("it is not of the form /ip4/ADDRESS/tcp/PORT")
    host, port = str(parts[0][1]), int(str(parts[1][1]))
    if parts[0][0].startswith("dns") and not _is_host_name(host):
        raise ValueError(f"{host!r} is no host name")
    return Endpoint(parts[0][0], host, port)


def _is_host_name(text: str) -> bool:
    labels = text.rstrip(".").split(".")
    return len(text) <= 253 and all(
        label and len(label) <= 63 and all(c.isalnum() or c in "-_" for c in label) for label in labels
    )


def parse_setting(text: str, setting: str) -> Endpoint:
    """:func:`parse` for a user's setting: HiveError (usage) instead of ValueError."""
    try:
        return parse(text)
    except ValueError as error:
        raise usage(
            f"reading {setting} failed",
            f"{text!r}: {error}",
            f"Write for example --{setting} /ip4/0.0.0.0/tcp/4483",
        ) from None


def of_socket(address: tuple[str, int]) -> str:
    """The multiaddr of a socket's address; an IPv4-mapped IPv6 one is IPv4."""
    ip = ipaddress.ip_address(address[0].split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return str(Endpoint(f"ip{ip.version}", str(ip), address[1]))


def source_of(address: str) -> str:
    """Whom a limit holds for: an IPv4 address, or the /64 of an IPv6 one, which is one customer's."""
    end = parse(address)
    if not end.kind.startswith("ip"):
        return f"/{end.kind}/{end.host}"
    ip = ipaddress.ip_address(end.host)
    return f"/ip4/{ip}" if ip.version == 4 else f"/ip6/{ipaddress.ip_network((int(ip), 64), strict=False)}"


def site_of(source: str) -> str:
    """The customer that a source is likely of: of an IPv6 one its /48, else itself."""
    kind, text = source[:5], source[5:]
    if kind != "/ip6/":
        return source
    network = ipaddress.ip_network(text)
    return f"/ip6/{network.supernet(new_prefix=48)}"


def interface_addresses() -> list[str]:
    """The IP addresses of this machine that others may reach, most public first; loopback when alone."""
    found: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    for name, addresses in psutil.net_if_addrs().items():
        for item in addresses:
            if name in up and item.family in (socket.AF_INET, socket.AF_INET6):
                ip = ipaddress.ip_address(item.address.split("%")[0])
                # A link-local address means nothing without its zone, which is the other machine's.
                if not ip.is_link_local and ip not in found:
                    found.append(ip)
    outside = [ip for ip in found if not ip.is_loopback]
    chosen = outside or [ip for ip in found if ip.version == 4][:1]
    return [str(ip) for ip in sorted(chosen, key=lambda ip: (not ip.is_global, ip.version, str(ip)))]


def announced(listening: Iterable[str], announce: Iterable[str]) -> list[str]:
    """What others should dial: ``announce`` first, then the listeners with wildcards expanded."""
    found = list(announce)
    interfaces: list[str] | None = None
    for text in listening:
        end = parse(text)
        if end.kind.startswith("ip") and ipaddress.ip_address(end.host).is_unspecified:
            interfaces = interface_addresses() if interfaces is None else interfaces
            hosts = [host for host in interfaces if (":" in host) == (end.kind == "ip6")]
            found += [str(Endpoint(end.kind, host, end.port)) for host in hosts]
        else:
            found.append(str(end))
    return list(dict.fromkeys(found))


def is_private(text: str) -> bool:
    """Whether only machines of the same site can use the address."""
    end = parse(text)
    return end.kind.startswith("ip") and not ipaddress.ip_address(end.host).is_global
