"""A LAN: a switch, the router between it and the internet, and hosts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from tests.netns import nat
from tests.netns.host import DEVICE, LanHost
from tests.netns.internet import Internet
from tests.netns.link import End
from tests.netns.namespace import Namespace
from tests.netns.nat import Mode, Nat, Reject
from tests.netns.router import Router
from tests.netns.switch import Switch


class Lan:
    """A LAN with one router at first; ``make`` makes namespaces."""

    def __init__(
        self,
        name: str,
        make: Callable[[str], Namespace],
        internet: Internet,
        subnet: IPv4Network,
        subnet6: IPv6Network | None,
    ) -> None:
        self.name, self.subnet, self.subnet6 = name, subnet, subnet6
        self._make, self._internet = make, internet
        self.switch = Switch(make(f"{name}-switch"))
        self.routers: list[Router] = []
        self.hosts: list[LanHost] = []
        self._gateways, self._numbers = itertools.count(1), itertools.count(10)

    @property
    def router(self) -> Router:
        """The first one."""
        return self.routers[0]

    def address(self) -> str:
        """An IPv4 address that no host had yet."""
        return str(self.subnet[next(self._numbers)])

    def add_router(
        self,
        mode: Mode = "prc",
        *,
        reject: Reject = "drop",
        udp: bool = True,
        delay_ms: float = 0.0,
        loss_percent: float = 0.0,
    ) -> Router:
        """One more way out, for hosts that :meth:`~LanHost.use` it. IPv6 comes from the first router only."""
        number = next(self._gateways)
        subnet6 = self.subnet6 if number == 1 else None
        name = f"{self.name}-router" + ("" if number == 1 else str(number))
        namespace = self._make(name)
        line = self.name if number == 1 else f"{self.name}{number}"
        uplink = self._internet.plug(
            End(namespace, nat.WAN), line, delay_ms=delay_ms, loss_percent=loss_percent, ipv6=bool(subnet6)
        )
        self.switch.plug(End(namespace, nat.LAN), f"router{number}")
        address = self.subnet[number]
        lines = [f"address add {address}/{self.subnet.prefixlen} dev {nat.LAN}"]
        if subnet6:
            lines.append(f"address add {subnet6[1]}/{subnet6.prefixlen} dev {nat.LAN} nodad")
            uplink.route(subnet6)
        if mode == "none":
            uplink.route(self.subnet)
        namespace.ip(*lines)
        address6 = str(subnet6[1]) if subnet6 else None
        router = Router(namespace, uplink, str(address), address6, Nat(mode, reject, udp))
        self.routers.append(router)
        return router

    def host(self, name: str) -> LanHost:
        """One more machine."""
        namespace = self._make(name)
        port = self.switch.plug(End(namespace, DEVICE), f"host{len(self.hosts)}")
        address, length = self.address(), self.subnet.prefixlen
        address6 = None
        if self.subnet6:
            address6 = IPv6Interface((self.subnet6[10 + len(self.hosts)], self.subnet6.prefixlen))
        host = LanHost(name, namespace, self, port, IPv4Interface(f"{address}/{length}"), address6)
        self.hosts.append(host)
        return host

    def use(self, router: Router) -> None:
        """Have another gateway, for all its hosts."""
        for host in self.hosts:
            host.use(router)
