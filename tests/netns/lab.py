"""A lab: networks, NATs and machines on this one, as network namespaces. See docs/natlab.md.

    with Lab(directory) as lab:
        pub = lab.public("pub")
        home = lab.lan("home", mode="prc", delay_ms=20)
        a = home.host("a")
        near, far = lab.nodes(pub, a)
        home.router.readdress()

Needs root. Nothing of it is outside namespaces of its own: the machine's own network is not read or changed.
All of it ends with the ``with``, and a moment after its process, however that ends.
"""

from __future__ import annotations

import itertools
import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import TracebackType

from tests.netns.host import DEVICE, Host, PublicHost
from tests.netns.internet import Internet
from tests.netns.keeper import Keeper
from tests.netns.lan import Lan
from tests.netns.link import End
from tests.netns.namespace import Namespace
from tests.netns.nat import Mode, Reject
from tests.netns.node import PORT, PlacedNode

# That of a LAN or a public host is a device's name too, which has 15 characters; a second router's has a
# number behind.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,12}")


class Lab:
    """Networks that last as long as the ``with``.

    ``directory``: where nodes keep their data. ``remove``: remove it in the end, also after a crash.
    """

    def __init__(self, directory: Path, *, remove: bool = False) -> None:
        self.directory = directory
        self.keeper = Keeper(directory if remove else None)
        self.namespaces: dict[str, Namespace] = {}
        self.lans: dict[str, Lan] = {}
        self.publics: dict[str, PublicHost] = {}
        self._nodes: list[PlacedNode] = []
        self._lan_numbers, self._networks6 = itertools.count(1), itertools.count(1)
        try:
            self.internet = Internet(self._namespace("internet"))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the nodes, then end all that runs in the lab."""
        try:
            for node in self._nodes:
                if node.is_alive() and node.process is not None:
                    node.process.terminate()
            for node in self._nodes:
                node.close()
        finally:
            self.keeper.close()

    def _namespace(self, name: str) -> Namespace:
        if name in self.namespaces:
            raise ValueError(f"{name!r}: there is one already")
        namespace = self.namespaces[name] = Namespace(name, self.keeper)
        return namespace

    def _line(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r}: a name is a letter and up to 12 letters, digits and -")
        if name in self.internet.uplinks:
            raise ValueError(f"{name!r}: there is one already")
        return name

    def _network6(self) -> IPv6Network:
        return IPv6Network(f"2600:5:{next(self._networks6)}::/64")

    def lan(
        self,
        name: str,
        mode: Mode = "prc",
        *,
        reject: Reject = "drop",
        udp: bool = True,
        delay_ms: float = 0.0,
        loss_percent: float = 0.0,
        ipv6: bool = False,
        subnet: str = "",
    ) -> Lan:
        """A LAN behind a router; :class:`.Nat` says what ``mode``, ``reject`` and ``udp`` mean.

        ``delay_ms`` is for one way between router and internet, ``loss_percent`` for each way. ``ipv6`` gives
        the hosts global IPv6 addresses behind a firewall. ``subnet``: that of the LAN, else one that no
        other LAN has; two LANs may have one and the same, as homes do.
        """
        self._line(name)
        number = next(self._lan_numbers)
        network = subnet or (f"5.6.{number}.0/24" if mode == "none" else f"192.168.{number}.0/24")
        lan = Lan(
            name,
            self._namespace,
            self.internet,
            IPv4Network(network),
            self._network6() if ipv6 else None,
        )
        self.lans[name] = lan
        lan.add_router(mode, reject=reject, udp=udp, delay_ms=delay_ms, loss_percent=loss_percent)
        return lan

    def public(
        self, name: str, *, delay_ms: float = 0.0, loss_percent: float = 0.0, ipv6: bool = False
    ) -> PublicHost:
        """A machine on the internet itself."""
        namespace = self._namespace(self._line(name))
        end = End(namespace, DEVICE)
        uplink = self.internet.plug(end, name, delay_ms=delay_ms, loss_percent=loss_percent, ipv6=ipv6)
        address6 = None
        if ipv6:
            network6 = self._network6()
            uplink.route(network6)
            address6 = str(network6[10])
        host = self.publics[name] = PublicHost(name, namespace, uplink, address6)
        return host

    @property
    def hosts(self) -> dict[str, Host]:
        """All machines by name, the public ones first."""
        behind = {host.name: host for lan in self.lans.values() for host in lan.hosts}
        return {**self.publics, **behind}

    def node(self, host: Host, *flags: str, name: str = "", port: int = PORT) -> PlacedNode:
        """A hived on a machine, of its name unless another is given, not started yet.

        It listens on all of the machine's addresses.
        """
        listen = (f"/ip4/0.0.0.0/tcp/{port}", f"/ip6/::/tcp/{port}")
        node = PlacedNode(self.directory, name or host.name, host.namespace, *flags, listen=listen)
        self.adopt(node)
        return node

    def adopt(self, node: PlacedNode) -> None:
        """A node of a test's own kind, which is to end with the lab."""
        self._nodes.append(node)

    def nodes(self, *hosts: Host) -> list[PlacedNode]:
        """A hived on each of these machines, all of them started and ready."""
        nodes = [self.node(host) for host in hosts]
        for node in nodes:
            node.start(wait=False)
        for node in nodes:
            node.ready()
        return nodes
