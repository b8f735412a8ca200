"""A machine in a lab: a namespace with one device, eth0."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Sequence
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from typing import IO, TYPE_CHECKING, Any, TypeVar

from tests.netns.internet import Uplink
from tests.netns.link import End
from tests.netns.namespace import Namespace
from tests.netns.router import Router

if TYPE_CHECKING:
    from tests.netns.lan import Lan

T = TypeVar("T")
DEVICE = "eth0"


class Host:
    """A machine, on a LAN or on the internet itself.

    ``address`` and ``address6`` are its own; ``public`` is where the internet sees it: its router's address
    where that translates.
    """

    def __init__(self, name: str, namespace: Namespace) -> None:
        self.name, self.namespace = name, namespace
        self.address = ""
        self.address6: str | None = None
        self._blocked: set[str] = set()

    @property
    def public(self) -> str:
        return self.address

    @property
    def inside(self) -> list[str]:
        """What goes before a command that is to run on this machine."""
        return self.namespace.inside

    def call(self, function: Callable[[], T]) -> T:
        """Call a function on this machine; sockets that it makes stay there."""
        return self.namespace.call(function)

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        return self.namespace.socket(family, kind)

    def run(self, *command: str) -> str:
        """What a command prints; LabError when it fails."""
        return self.namespace.run(command)

    def popen(
        self, command: Sequence[str], *, stdout: int | IO[Any] | None = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        return self.namespace.popen(command, stdout=stdout)

    def defaults(self) -> list[str]:
        """ip(8)'s lines for this machine's default routes."""
        raise NotImplementedError

    def cut(self) -> None:
        """Lose the network from now on."""
        raise NotImplementedError

    def mend(self) -> None:
        raise NotImplementedError

    def drop_default(self) -> None:
        """Lose the default route, as between two networks; what is on the LAN is still reached."""
        lines = [f"route delete default dev {DEVICE}"]
        if self.address6:
            lines.append(f"route delete ::/0 dev {DEVICE}")
        self.namespace.ip(*lines)

    def restore_default(self) -> None:
        self.namespace.ip(*self.defaults())

    def block(self, *addresses: str) -> None:
        """Drop all packets from and to these addresses from now on.

        Behind a NAT the other machine's address is that of its router (``public``): all there are blocked.
        """
        self._block(self._blocked | set(addresses))

    def unblock(self) -> None:
        self._block(set())

    def _block(self, addresses: set[str]) -> None:
        self._blocked = addresses
        lines = ["flush ruleset", "table inet blocked {"]
        for hook, field in (("input", "saddr"), ("output", "daddr")):
            lines += [f"chain {hook} {{", f"type filter hook {hook} priority filter; policy accept;"]
            for address in sorted(addresses):
                family = "ip" if ip_address(address).version == 4 else "ip6"
                lines.append(f"{family} {field} {address} drop")
            lines.append("}")
        self.namespace.nft("\n".join([*lines, "}", ""]))


class PublicHost(Host):
    """A machine with a public address and no firewall."""

    def __init__(self, name: str, namespace: Namespace, uplink: Uplink, address6: str | None) -> None:
        super().__init__(name, namespace)
        self.uplink, self.address, self.address6 = uplink, uplink.address, address6
        if address6:
            namespace.ip(f"address add {address6}/64 dev {DEVICE} nodad")

    def defaults(self) -> list[str]:
        return [self.uplink.default, *([self.uplink.default6] if self.address6 else [])]

    def cut(self) -> None:
        """Lose every packet from now on; nobody is told."""
        self.uplink.cut()

    def mend(self) -> None:
        self.uplink.mend()

    def readdress(self, address: str = "") -> str:
        """Have another public IPv4 address, the next one or the one given."""
        self.address = self.uplink.readdress(address)
        return self.address


class LanHost(Host):
    """A machine on a LAN, whose default routes lead to one of the LAN's routers."""

    def __init__(
        self,
        name: str,
        namespace: Namespace,
        lan: Lan,
        port: End,
        address: IPv4Interface,
        address6: IPv6Interface | None,
    ) -> None:
        super().__init__(name, namespace)
        self.lan, self.router, self._port = lan, lan.router, port
        self.address = str(address.ip)
        lines = [f"address add {address} dev {DEVICE}"]
        if address6:
            self.address6 = str(address6.ip)
            lines.append(f"address add {address6} dev {DEVICE} nodad")
        namespace.ip(*lines, *self.defaults())

    @property
    def public(self) -> str:
        return self.address if self.router.nat.mode == "none" else self.router.public

    def defaults(self) -> list[str]:
        lines = [f"route replace default via {self.router.address} dev {DEVICE}"]
        if self.address6 and self.router.address6:
            lines.append(f"route replace ::/0 via {self.router.address6} dev {DEVICE}")
        return lines

    def cut(self) -> None:
        """Pull the cable: the device loses its carrier, and keeps its addresses and routes."""
        self._port.down()

    def mend(self) -> None:
        self._port.up()

    def use(self, router: Router) -> None:
        """Have another gateway, one of the LAN's routers."""
        self.router = router
        self.restore_default()

    def readdress(self, address: str = "") -> str:
        """Have another IPv4 address on the LAN, the next one or the one given, as DHCP may bring it."""
        old, new = self.address, address or self.lan.address()
        length = self.lan.subnet.prefixlen
        self.address = new
        self.namespace.ip(
            f"address delete {old}/{length} dev {DEVICE}", f"address add {new}/{length} dev {DEVICE}"
        )
        # The routes went with the old address.
        self.restore_default()
        return new
