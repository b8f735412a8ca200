"""A router between a LAN and the internet."""

from __future__ import annotations

from dataclasses import replace

from tests.netns.internet import Uplink
from tests.netns.namespace import Namespace
from tests.netns.nat import Mode, Nat, Reject


class Router:
    """A namespace with the devices wan0 and lan0, and rules that say what passes between them."""

    def __init__(
        self, namespace: Namespace, uplink: Uplink, address: str, address6: str | None, nat: Nat
    ) -> None:
        self.name = namespace.name
        self.namespace, self.uplink = namespace, uplink
        # Where the LAN's hosts find it.
        self.address, self.address6 = address, address6
        self.nat = nat
        for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            namespace.sysctl(key, "1")
        # A packet out of the middle of a connection begins none: what was flushed is gone.
        namespace.sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")
        namespace.nft(nat.rules())

    @property
    def public(self) -> str:
        """Its address on the internet."""
        return self.uplink.address

    def change(
        self, mode: Mode | None = None, *, reject: Reject | None = None, udp: bool | None = None
    ) -> None:
        """Be another kind of NAT from now on; all connections through it are forgotten."""
        now = self.nat
        udp = now.udp if udp is None else udp
        nat = replace(now, mode=mode or now.mode, reject=reject or now.reject, udp=udp)
        if (nat.mode == "none") != (now.mode == "none"):
            raise ValueError("none is not changed to or from: the LAN's addresses are public or private")
        self.nat = nat
        self.flush()

    def forward(self, port: int, host: str) -> None:
        """Lead a port of its public address to a host of the LAN from now on; all is forgotten, too."""
        self.nat = replace(self.nat, forwards=(*self.nat.forwards, (port, host)))
        self.flush()

    def flush(self) -> None:
        """Forget all connections and mappings, as a router that was switched off and on."""
        self.namespace.nft(self.nat.rules())
        self.namespace.run(["conntrack", "-F"])

    def readdress(self, address: str = "") -> str:
        """Get another public address from the provider, and forget all connections."""
        if self.nat.mode == "none":
            raise ValueError("a router without NAT has no public address that matters")
        found = self.uplink.readdress(address)
        self.flush()
        return found

    def cut(self) -> None:
        """No packet between the router and the internet from now on; the hosts see nothing of it."""
        self.uplink.cut()

    def mend(self) -> None:
        self.uplink.mend()
