"""Members on one LAN find each other, with nothing named; who is no member learns nothing that counts."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from tests.netns.host import Host
from tests.netns.lab import Lab
from tests.netns.meshes import NETWORK, await_path

pytestmark = pytest.mark.requires("natlab")

GROUP, PORT = "224.0.0.251", 5353


def ear(host: Host) -> socket.socket:
    """Hears the LAN's multicast DNS, as anybody there may."""

    def listen() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("", PORT))
        member = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton(host.address))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        sock.settimeout(0.2)
        return sock

    return host.call(listen)


def heard(sock: socket.socket) -> bytes:
    """All that has come."""
    found = b""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        try:
            found += sock.recv(9000)
        except TimeoutError:
            break
    return found


def shout(host: Host, packet: bytes) -> None:
    """Say something to all on a LAN."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((host.address, PORT))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(host.address))
            sock.sendto(packet, (GROUP, PORT))

    host.call(send)


def dns_name(*labels: bytes) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def test_a_name_that_is_none_ends_nothing(lab: Lab) -> None:
    """A packet that points from our service to a name of another kind, or to none that can be."""
    home = lab.lan("home")
    one, two, evil = home.host("one"), home.host("two"), home.host("evil")
    home.router.cut()
    a = lab.node(one)
    a.start()
    a.create(NETWORK)
    deadline = time.monotonic() + 20
    while not a.json("netcheck")["mdns_on"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    service = dns_name(b"_hive", b"_tcp", b"local")
    for alias in (
        dns_name(b"x", b"_http", b"_tcp", b"local"),
        dns_name(b"\x01\x02", b"_hive", b"_tcp", b"local"),
    ):
        record = service + struct.pack("!HHIH", 12, 1, 4500, len(alias)) + alias
        shout(evil, struct.pack("!HHHHHH", 0, 0x8400, 0, 1, 0, 0) + record)
    b = lab.node(two)
    b.start()
    b.create(NETWORK)
    await_path(a, b, 25, "direct")
    assert a.json("netcheck")["mdns_on"]


def test_members_on_a_lan_find_each_other(lab: Lab) -> None:
    """Two LANs without a way between: each finds its own. A stranger hears that nodes are there, no more."""
    home, office = lab.lan("home"), lab.lan("office")
    a, b, stranger = home.host("a"), home.host("b"), home.host("stranger")
    c, d = office.host("c"), office.host("d")
    for router in (home.router, office.router):
        router.cut()
    with ear(stranger) as listening:
        nodes = lab.nodes(a, b, c, d, stranger)
        for node in nodes[:4]:
            node.create(NETWORK)
        # It is in a network of that name too, but does not know the password.
        nodes[4].create(NETWORK, "another password altogether")
        await_path(nodes[0], nodes[1], 20, "direct")
        await_path(nodes[1], nodes[0], 5, "direct")
        await_path(nodes[2], nodes[3], 20, "direct")
        assert {row["name"] for row in nodes[0].json("nodes") if row["path"] != "none"} == {"a", "b"}
        assert {row["name"] for row in nodes[2].json("nodes") if row["path"] != "none"} == {"c", "d"}
        assert nodes[0].json("netcheck")["mdns"] == 2, "b, and the stranger that claims to be one of us"
        told = heard(listening)
    assert nodes[0].peer_id.encode() in told
    assert NETWORK.encode() not in told
    assert [row["path"] for row in nodes[4].json("nodes")] == ["self"]


def test_who_wants_no_discovery_says_nothing(lab: Lab) -> None:
    home = lab.lan("home")
    a, b = home.host("a"), home.host("b")
    with ear(b) as listening:
        node = lab.node(a, "--mdns", "off")
        node.start()
        node.create(NETWORK)
        assert not node.json("netcheck")["mdns_on"]
        assert node.peer_id.encode() not in heard(listening)
