"""A switch: a bridge in a namespace of its own, with cables to pull."""

from __future__ import annotations

from tests.netns import link
from tests.netns.link import End
from tests.netns.namespace import Namespace

BRIDGE = "br0"


class Switch:
    """Carries frames, multicast ones to all, between the namespaces that are plugged in.

    No rule of nft(8) is in its namespace: where bridge-nf-call-iptables is set, as it is by default, rules
    of a router would be asked about frames within the LAN too, and drop multicast DNS.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        # Nobody sends multicast queries here, without which snooping loses members.
        namespace.ip(f"link add name {BRIDGE} type bridge mcast_snooping 0", f"link set dev {BRIDGE} up")

    def plug(self, end: End, port: str) -> End:
        """A cable to a device that is made there; its other end, which may go down and up."""
        far = End(self.namespace, port)
        link.cable(end, far)
        self.namespace.ip(f"link set dev {port} master {BRIDGE}")
        return far
