"""The internet of a lab: one router that all uplinks lead to.

Its addresses look globally routable, because libraries leave out private ones and those kept for
documentation. The namespaces have no way out, so that nobody's addresses are disturbed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network

from tests.netns import link
from tests.netns.link import End
from tests.netns.namespace import Namespace

GATEWAY, GATEWAY6 = "5.5.0.1", "fe80::1"
_PEER6 = "fe80::2"
Network = IPv4Network | IPv6Network


class Internet:
    """The router. It drops what is for addresses that nobody here has, as most providers do."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.uplinks: dict[str, Uplink] = {}
        self._numbers = itertools.count(1)
        for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            self.namespace.sysctl(key, "1")
        self.namespace.ip(
            f"address add {GATEWAY}/32 dev lo",
            "route add blackhole default",
            "route add blackhole ::/0",
        )

    def address(self) -> str:
        """A public IPv4 address that nobody had yet."""
        high, low = divmod(next(self._numbers), 200)
        return f"5.5.{5 + high}.{9 + low}"

    def plug(
        self, end: End, name: str, *, delay_ms: float = 0.0, loss_percent: float = 0.0, ipv6: bool = False
    ) -> Uplink:
        """Lead a line to a device that is made there, and give it a public address."""
        uplink = Uplink(self, end, name, self.address(), delay_ms, ipv6)
        self.uplinks[name] = uplink
        if loss_percent:
            uplink.lose(loss_percent)
        return uplink

    def apply(self) -> None:
        """Let the lines be as their uplinks say."""
        rules = [rule for uplink in self.uplinks.values() for rule in uplink.rules()]
        chain = "type filter hook forward priority filter; policy accept;"
        self.namespace.nft(
            "\n".join(["flush ruleset", "table inet lines {", "chain forward {", chain, *rules, "}", "}", ""])
        )


class Uplink:
    """A line from somebody's device to the internet, with a public address there."""

    def __init__(
        self, internet: Internet, end: End, name: str, address: str, delay_ms: float, ipv6: bool
    ) -> None:
        self.internet, self.end, self.name, self.address = internet, end, name, address
        self.loss_percent = 0.0
        self._cut = False
        self.far = End(internet.namespace, name)
        if delay_ms:
            link.shuttle(end, self.far, delay_ms)
        else:
            link.cable(end, self.far)
        self._gateway()
        self._address(address)
        if ipv6:
            end.namespace.ip(f"address add {_PEER6}/64 dev {end.device} nodad", self.default6)
            internet.namespace.ip(f"address add {GATEWAY6}/64 dev {name} nodad")

    @property
    def default(self) -> str:
        """ip(8)'s line for the default route over this line."""
        return f"route replace default via {GATEWAY} dev {self.end.device} onlink"

    @property
    def default6(self) -> str:
        return f"route replace ::/0 via {GATEWAY6} dev {self.end.device}"

    def _gateway(self) -> None:
        self.end.namespace.ip(f"route replace {GATEWAY}/32 dev {self.end.device}")

    def _address(self, address: str) -> None:
        self.end.namespace.ip(f"address add {address}/32 dev {self.end.device}", self.default)
        self.internet.namespace.ip(f"route add {address}/32 dev {self.name}")

    def readdress(self, address: str = "") -> str:
        """Have another public address, the next one or the one given; the old one is nobody's."""
        old, self.address = self.address, address or self.internet.address()
        self._address(self.address)
        # With an address the routes that were made with it as their source go too.
        self.end.namespace.ip(f"address delete {old}/32 dev {self.end.device}")
        self._gateway()
        self.end.namespace.ip(self.default)
        self.internet.namespace.ip(f"route delete {old}/32 dev {self.name}")
        return self.address

    def route(self, network: Network) -> None:
        """Lead a network's packets to the device, without NAT."""
        if network.version == 4:
            self.internet.namespace.ip(f"route add {network} via {self.address} dev {self.name} onlink")
        else:
            self.internet.namespace.ip(f"route add {network} via {_PEER6} dev {self.name}")

    def cut(self) -> None:
        """Lose every packet from now on; nobody is told, as when a provider fails."""
        self._cut = True
        self.internet.apply()

    def mend(self) -> None:
        self._cut = False
        self.internet.apply()

    def lose(self, percent: float) -> None:
        """Lose this share of the packets from now on, each way."""
        self.loss_percent = percent
        self.internet.apply()

    def rules(self) -> Sequence[str]:
        """nft(8)'s rules for what the line loses."""
        if self._cut:
            what = "drop"
        elif self.loss_percent:
            what = f"numgen random mod 100000 < {round(self.loss_percent * 1000)} drop"
        else:
            return ()
        return [f'{way} "{self.name}" {what}' for way in ("iifname", "oifname")]
