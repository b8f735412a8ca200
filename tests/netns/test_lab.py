"""Lines with delay and loss, IPv6 behind a firewall, multicast, and what changes while a lab runs."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time

import pytest

from tests.integration.services import receive_all
from tests.netns.host import Host
from tests.netns.internet import Uplink
from tests.netns.lab import Lab
from tests.netns.namespace import LabError
from tests.netns.probes import (
    PORT,
    Address,
    Endpoint,
    Outcome,
    arrived,
    expect,
    listener,
    passes,
    tcp,
    udp,
)

pytestmark = pytest.mark.requires("natlab")
MDNS = ("224.0.0.251", 5353)


def round_trip(host: Host, endpoint: Endpoint) -> float:
    """The shortest of some, in seconds: what else the machine does makes them longer, not shorter."""
    found = []
    with udp(host) as sender:
        for _ in range(5):
            start = time.monotonic()
            sender.sendto(b"?", endpoint.address)
            endpoint.udp.sendto(*endpoint.udp.recvfrom(100))
            sender.recv(100)
            found.append(time.monotonic() - start)
    return min(found)


def test_delay(lab: Lab) -> None:
    pub = Endpoint(lab.public("pub"), 7001)
    far = Endpoint(lab.public("far", delay_ms=30), 7001)
    near, slow = lab.lan("near").host("a"), lab.lan("slow", delay_ms=25).host("b")
    for host, endpoint, milliseconds in ((near, pub, 0), (slow, pub, 50), (near, far, 60), (slow, far, 110)):
        assert milliseconds <= round_trip(host, endpoint) * 1000 < milliseconds + 100


def test_a_line_with_delay_carries_tcp(lab: Lab) -> None:
    pub, host = lab.public("pub"), lab.lan("home", delay_ms=5, loss_percent=2).host("a")
    # So little fits into the buffers on the way.
    data = bytes(range(256)) * 128
    with listener(pub, PORT) as listening, tcp(host) as client:
        client.connect((pub.address, PORT))
        server, _ = listening.accept()
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        with server:
            assert receive_all(server) == data


def arriving(sender: socket.socket, receiver: Endpoint, line: Uplink, loss_percent: float) -> int:
    """How many of 1,000 datagrams get over a line that loses so many."""
    found = 0
    line.lose(loss_percent)
    for _ in range(1000):
        sender.sendto(b"?", receiver.address)
        found += arrived(receiver.udp)
    line.lose(0)
    sender.sendto(b"end", receiver.address)
    while receiver.udp.recv(100) != b"end":
        found += 1
    return found


def test_loss(lab: Lab) -> None:
    """Eight standard deviations each way."""
    endpoint, home = Endpoint(lab.public("pub"), 7001), lab.lan("home", loss_percent=30)
    line = home.router.uplink
    assert line.loss_percent == 30
    with udp(home.host("a")) as sender:
        assert 580 < arriving(sender, endpoint, line, 30) < 820
        assert 970 < arriving(sender, endpoint, line, 0.5) < 1000
        assert arriving(sender, endpoint, line, 0) == 1000


def test_loss_each_way_and_between_public_hosts(lab: Lab) -> None:
    host = lab.public("here")
    here, there = Endpoint(host, 7001), Endpoint(lab.public("there"), 7001)
    assert 370 < arriving(here.udp, there, host.uplink, 50) < 630
    assert 370 < arriving(there.udp, here, host.uplink, 50) < 630


@pytest.mark.parametrize("mode", ["prc", "none"])
def test_ipv6(lab: Lab, mode: str) -> None:
    """Global addresses, seen as they are; behind a firewall, but where there is neither NAT nor firewall."""
    is_open = mode == "none"
    pub, other = lab.public("pub", ipv6=True), lab.public("other", ipv6=True)
    home = lab.lan("home", "none" if is_open else "prc", ipv6=True)
    host = home.host("a")
    assert host.address6 is not None
    endpoint = Endpoint(pub, 7001, socket.AF_INET6)
    friend, stranger, inside = (
        endpoint.udp,
        udp(other, 7002, socket.AF_INET6),
        udp(host, PORT, socket.AF_INET6),
    )
    with friend, stranger, inside, listener(host, PORT, socket.AF_INET6):
        inside.sendto(b"?", endpoint.address)
        assert friend.recvfrom(100)[1][:2] == (host.address6, PORT)
        assert passes(stranger, inside, (host.address6, PORT), friend) == is_open
        expect("in", host, endpoint.address)
        expect("in" if is_open else "silence", other, (host.address6, PORT))
        if not is_open:
            home.router.change(reject="rst")
            expect("refused", other, (host.address6, PORT))
            home.router.change(udp=False)
            inside.sendto(b"?", endpoint.address)
            expect("in", host, endpoint.address)
            assert not arrived(friend)


def test_a_lan_without_ipv6_has_none(lab: Lab) -> None:
    pub, host = lab.public("pub", ipv6=True), lab.lan("home").host("a")
    with udp(host, family=socket.AF_INET6) as sender, pytest.raises(OSError, match="unreachable"):
        sender.sendto(b"?", (pub.address6, 7001))


def member(host: Host) -> socket.socket:
    """A socket of a multicast DNS responder (RFC 6762)."""
    made = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(5)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("", MDNS[1]))
    address = socket.inet_aton(host.address)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(MDNS[0]) + address)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, address)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, struct.pack("B", 255))
    return made


def test_multicast_dns_stays_in_its_lan(lab: Lab) -> None:
    home, office = lab.lan("home"), lab.lan("office")
    hosts = [home.host("a"), home.host("b"), office.host("c"), office.host("d")]
    with contextlib.ExitStack() as stack:
        a, b, c, d = (stack.enter_context(member(host)) for host in hosts)
        a.sendto(b"from home", MDNS)
        assert b.recvfrom(100) == (b"from home", (hosts[0].address, MDNS[1]))
        # The first that the other LAN hears of is its own.
        d.sendto(b"from the office", MDNS)
        assert c.recv(100) == b"from the office"
        assert not arrived(b)


def test_an_uplink_that_fails_and_returns(lab: Lab) -> None:
    """Connections wait and go on: nothing has told anybody that they are broken."""
    pub, home = lab.public("pub"), lab.lan("home")
    host = home.host("a")
    neighbour = home.host("b")
    with listener(pub, PORT) as outside, listener(neighbour, PORT), tcp(host) as client:
        client.connect((pub.address, PORT))
        server, _ = outside.accept()
        with server:
            for cut, mend in ((home.router.cut, home.router.mend), (pub.cut, pub.mend)):
                cut()
                client.send(b"!")
                expect("silence", host, (pub.address, PORT))
                expect("in", host, (neighbour.address, PORT))
                assert not arrived(server)
                mend()
                assert server.recv(100) == b"!"


def carrier(host: Host) -> bool:
    shown = json.loads(host.run("ip", "-json", "link", "show", "dev", "eth0"))
    return "NO-CARRIER" not in shown[0]["flags"]


def test_a_cable_that_is_pulled_and_plugged(lab: Lab) -> None:
    pub, home = lab.public("pub"), lab.lan("home")
    host, neighbour = home.host("a"), home.host("b")
    with listener(pub, PORT), listener(neighbour, PORT):
        expect("in", host, (pub.address, PORT))
        host.cut()
        assert not carrier(host)
        assert carrier(neighbour)
        expect("in", neighbour, (pub.address, PORT))
        for target in (pub, neighbour):
            expect("silence", host, (target.address, PORT))
        host.mend()
        assert carrier(host)
        for target in (pub, neighbour):
            expect("in", host, (target.address, PORT))


def test_another_address_on_the_lan(lab: Lab) -> None:
    pub, home = Endpoint(lab.public("pub"), 7001), lab.lan("home")
    host, neighbour = home.host("a"), home.host("b")
    before = host.address
    with listener(host, PORT):
        expect("in", neighbour, (before, PORT))
        assert host.readdress() == host.address != before
        expect("in", neighbour, (host.address, PORT))
        assert pub.sees("udp", host) == (home.router.public, PORT)
        expect("silence", neighbour, (before, PORT))
        host.readdress("192.168.1.200")
        expect("in", neighbour, ("192.168.1.200", PORT))


def test_another_public_address(lab: Lab) -> None:
    """As after a night's reconnection: what was open is dead, and nobody is told."""
    pub, home = lab.public("pub"), lab.lan("home", "full")
    host, before = home.host("a"), home.router.public
    endpoint = Endpoint(pub, 7001)
    with listener(host, PORT), tcp(host) as client:
        client.connect(endpoint.address)
        server, _ = endpoint.tcp.accept()
        assert endpoint.sees("tcp", host) == (before, PORT)
        expect("in", pub, (before, PORT))
        assert home.router.readdress() == home.router.public == host.public != before
        with server:
            client.send(b"!")
            expect("silence", pub, (before, PORT))
            assert not arrived(server)
        other = Endpoint(pub, 7002)
        assert other.sees("tcp", host) == (home.router.public, PORT)
        expect("in", pub, (home.router.public, PORT))


def test_another_address_of_a_public_host(lab: Lab) -> None:
    pub, host = lab.public("pub"), lab.lan("home", delay_ms=1).host("a")
    with listener(pub, PORT):
        before = pub.address
        pub.readdress()
        expect("silence", host, (before, PORT))
        expect("in", host, (pub.address, PORT))
    # What it sends comes from there too.
    other = lab.public("other")
    with udp(pub) as sender, udp(other, PORT) as receiver:
        sender.sendto(b"?", (other.address, PORT))
        assert receiver.recvfrom(100)[1][0] == pub.address


def test_another_gateway(lab: Lab) -> None:
    pub, home = Endpoint(lab.public("pub"), 7001), lab.lan("home")
    hosts = [home.host("a"), home.host("b")]
    spare = home.add_router("sym", delay_ms=5)
    assert pub.sees("udp", hosts[0]) == (home.router.public, PORT)
    hosts[0].use(spare)
    address, port = pub.sees("udp", hosts[0])
    assert (address, hosts[0].public) == (spare.public, spare.public)
    assert port != PORT
    assert pub.sees("udp", hosts[1], PORT + 1) == (home.router.public, PORT + 1)
    home.use(spare)
    assert pub.sees("udp", hosts[1])[0] == spare.public
    home.use(home.router)
    assert pub.sees("udp", hosts[0], PORT + 2) == (home.router.public, PORT + 2)


def test_without_a_default_route(lab: Lab) -> None:
    pub, home = lab.public("pub", ipv6=True), lab.lan("home", ipv6=True)
    hosts = [home.host("a"), pub]
    neighbour = home.host("b")
    with listener(pub, 7001), listener(pub, 7002, socket.AF_INET6), listener(neighbour, PORT):
        targets: list[Address] = [(pub.address, 7001), (str(pub.address6), 7002)]
        for host in hosts:
            host.drop_default()
            if host is not pub:
                expect("in", host, (neighbour.address, PORT))
                for target in targets:
                    with pytest.raises(OSError, match="unreachable"):
                        expect("in", host, target)
            else:
                expect("silence", hosts[0], targets[0])
            host.restore_default()
            for target in targets:
                expect("in", hosts[0], target)


def test_one_host_blocked_from_another(lab: Lab) -> None:
    pub, other = lab.public("pub"), lab.public("other")
    home = lab.lan("home", ipv6=True)
    a, b = home.host("a"), home.host("b")
    with (
        listener(pub, PORT),
        listener(other, PORT),
        listener(b, PORT),
        listener(b, PORT + 1, socket.AF_INET6),
    ):
        a.block(pub.address, str(b.address6))
        expect("silence", a, (pub.address, PORT))
        expect("in", b, (pub.address, PORT))
        expect("in", a, (b.address, PORT))
        expect("silence", a, (str(b.address6), PORT + 1))
        a.block(b.address)
        for target in (pub, b):
            expect("silence", a, (target.address, PORT))
        expect("in", a, (other.address, PORT))
        a.unblock()
        expect("in", a, (pub.address, PORT))
        other.block(home.router.public)
        for host in (a, b):
            expect("silence", host, (other.address, PORT))
        expect("in", pub, (other.address, PORT))


def test_a_router_that_forgets(lab: Lab) -> None:
    """A connection from before is dead both ways, though port and addresses would be the same."""
    pub, home = lab.public("pub"), lab.lan("home")
    host = home.host("a")
    endpoint = Endpoint(pub, 7001)
    with tcp(host, PORT) as client, udp(host, PORT) as inside:
        client.connect(endpoint.address)
        server, _ = endpoint.tcp.accept()
        mapped = endpoint.sees("udp", host, via=inside)
        home.router.flush()
        with server:
            client.send(b"!")
            server.send(b"!")
            endpoint.udp.sendto(b"!", mapped)
            # A datagram makes a mapping anew.
            assert endpoint.sees("udp", host, via=inside) == mapped
            assert not arrived(server)
            assert not arrived(client)
            assert not arrived(inside)
            endpoint.udp.sendto(b"again", mapped)
            assert inside.recv(100) == b"again"


def test_another_mode(lab: Lab) -> None:
    home = lab.lan("home")
    host, endpoint = home.host("a"), Endpoint(lab.public("pub"), 7001)
    assert endpoint.sees("udp", host) == (host.public, PORT)
    home.router.change("sym")
    assert endpoint.sees("udp", host)[1] != PORT
    home.router.change("prc")
    assert endpoint.sees("udp", host) == (host.public, PORT)
    with pytest.raises(ValueError, match="none is not changed to or from"):
        home.router.change("none")


def test_two_lans_with_the_same_addresses(lab: Lab) -> None:
    """As homes have: an address that another LAN's host tells of is somebody else's here, or nobody's."""
    hosts = [lab.lan(name, subnet="192.168.178.0/24").host(f"{name}-1") for name in ("left", "right")]
    assert hosts[0].address == hosts[1].address
    pub = Endpoint(lab.public("pub"), 7001)
    assert pub.sees("udp", hosts[0])[0] != pub.sees("udp", hosts[1])[0]
    outcome: Outcome = "refused"
    with listener(hosts[1], PORT):
        expect(outcome, hosts[0], (hosts[1].address, PORT))


def test_addresses_that_nobody_has_are_silent(lab: Lab) -> None:
    home, office = lab.lan("home"), lab.lan("office")
    with listener(office.host("b"), PORT):
        expect("silence", home.host("a"), ("192.168.2.10", PORT))


def test_what_is_wrong_is_said(lab: Lab) -> None:
    lab.lan("home").host("a")
    for name in ("home", "Home", "a-name-of-16-let", ""):
        with pytest.raises(ValueError, match=r"there is one already|a name is"):
            lab.public(name)
    with pytest.raises(ValueError, match="there is one already"):
        lab.lan("office").host("a")
    with pytest.raises(LabError, match="home-router: ip -batch -: Cannot find device"):
        lab.lans["home"].router.namespace.ip("link set dev nothing up")
    with pytest.raises(LabError, match="no such-program on this machine"):
        lab.lans["home"].hosts[0].run("such-program")
