"""Each mode of NAT does on the wire what docs/natlab.md says of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.netns.host import LanHost, PublicHost
from tests.netns.lab import Lab
from tests.netns.nat import MODES, REMAPPED, Mode, Nat, Reject
from tests.netns.probes import (
    PORT,
    Address,
    Endpoint,
    Kind,
    Outcome,
    expect,
    listener,
    open_at_once,
    passes,
    punch,
    udp,
)

pytestmark = pytest.mark.requires("natlab")
KINDS: tuple[Kind, ...] = ("udp", "tcp")
NATS = [mode for mode in MODES if mode not in {"none", "udp-blocking"}]


@dataclass
class Outside:
    """Three endpoints on two public hosts."""

    lab: Lab
    hosts: list[PublicHost] = field(init=False)
    endpoints: list[Endpoint] = field(init=False)

    def __post_init__(self) -> None:
        self.hosts = [self.lab.public("pub"), self.lab.public("other")]
        here, there = self.hosts
        self.endpoints = [Endpoint(here, 7001), Endpoint(here, 7002), Endpoint(there, 7001)]

    def see(self, kind: Kind, host: LanHost, port: int = PORT) -> list[Address]:
        return [endpoint.sees(kind, host, port) for endpoint in self.endpoints]


@pytest.fixture
def outside(lab: Lab) -> Outside:
    return Outside(lab)


@pytest.mark.parametrize("mode", NATS)
def test_a_mapping_as_three_endpoints_see_it(lab: Lab, outside: Outside, mode: Mode) -> None:
    host = lab.lan("home", mode).host("a")
    for kind in KINDS:
        seen = outside.see(kind, host)
        assert {address for address, _ in seen} == {host.public}
        ports = [port for _, port in seen]
        if mode == "sym":
            assert len(set(ports)) == 3
        elif mode == "remap":
            assert len(set(ports)) == 1
            assert REMAPPED[0] <= ports[0] <= REMAPPED[1]
            assert outside.see(kind, host, PORT + 1)[0] != seen[0]
        else:
            assert ports == [PORT] * 3


def test_two_hosts_of_a_lan_that_use_one_port(lab: Lab, outside: Outside) -> None:
    """A router that keeps ports gives the second another one: there is only one address for both."""
    home = lab.lan("home")
    hosts = home.host("a"), home.host("b")
    for kind in KINDS:
        first, second = (outside.see(kind, host)[0] for host in hosts)
        assert first == (home.router.public, PORT)
        assert second[0] == home.router.public
        assert second[1] != PORT


@pytest.mark.parametrize("mode", NATS)
def test_unsolicited_datagrams(lab: Lab, outside: Outside, mode: Mode) -> None:
    """From an address, and from a port, that the host has not sent to: only a full cone lets them in."""
    host = lab.lan("home", mode).host("a")
    friend = outside.endpoints[0]
    with udp(host, PORT) as inside, udp(outside.hosts[0]) as neighbour, udp(outside.hosts[1]) as stranger:
        mapped = friend.sees("udp", host, via=inside)
        for sender in (neighbour, stranger):
            assert passes(sender, inside, mapped, friend.udp) == (mode == "full")


@pytest.mark.parametrize("mode", NATS)
def test_unsolicited_connections(lab: Lab, outside: Outside, mode: Mode) -> None:
    home = lab.lan("home", mode)
    host = home.host("a")
    answers: dict[Reject, Outcome] = {"drop": "silence", "rst": "refused"}
    with listener(host, PORT):
        for endpoint, (reject, answer) in zip(outside.endpoints[:2], answers.items(), strict=True):
            home.router.change(reject=reject)
            mapped = endpoint.sees("tcp", host)
            for stranger in outside.hosts:
                expect("in" if mode == "full" else answer, stranger, mapped)


def test_a_full_cone_is_open_for_what_was_used(lab: Lab, outside: Outside) -> None:
    """It is no port forward: a port that the host has not sent from leads nowhere, nor one after a flush."""
    home = lab.lan("home", "full")
    host = home.host("a")
    with listener(host, PORT):
        expect("silence", outside.hosts[0], (host.public, PORT))
        outside.endpoints[0].sees("tcp", host)
        expect("in", outside.hosts[0], (host.public, PORT))
        home.router.flush()
        expect("silence", outside.hosts[0], (host.public, PORT))


def test_without_nat(lab: Lab, outside: Outside) -> None:
    host = lab.lan("office", "none").host("a")
    assert host.public == host.address
    for kind in KINDS:
        assert outside.see(kind, host) == [(host.address, PORT)] * 3
    with listener(host, PORT), udp(host, PORT) as inside, udp(outside.hosts[0]) as stranger:
        expect("in", outside.hosts[0], (host.address, PORT))
        assert passes(stranger, inside, (host.address, PORT), outside.endpoints[0].udp)


@pytest.mark.parametrize("nat", [Nat("udp-blocking"), Nat("prc", udp=False), Nat("none", udp=False)], ids=str)
def test_udp_blocked(lab: Lab, outside: Outside, nat: Nat) -> None:
    """No datagram leaves; TCP is as ever."""
    host = lab.lan("office", nat.mode, udp=nat.udp).host("a")
    friend = outside.endpoints[0]
    with udp(host, PORT) as inside:
        inside.sendto(b"?", friend.address)
        # What is sent later has come, so what was sent before has too, if it was let through.
        assert friend.sees("tcp", host) == (host.public, PORT)
        friend.udp.setblocking(False)
        with pytest.raises(BlockingIOError):
            friend.udp.recv(100)
    # Nor does one come in, even to a port that is mapped.
    if nat.mode == "none":
        with udp(host, PORT) as inside:
            inside.setblocking(False)
            friend.udp.sendto(b"?", (host.address, PORT))
            assert friend.sees("tcp", host, PORT + 1) == (host.public, PORT + 1)
            with pytest.raises(BlockingIOError):
                inside.recv(100)


# Who can be reached when both send to where the other was seen last.
PAIRS: dict[tuple[Mode, Mode], bool] = {
    ("prc", "prc"): True,
    ("remap", "remap"): True,
    ("full", "full"): True,
    ("prc", "remap"): True,
    ("sym", "sym"): False,
    ("prc", "sym"): False,
    ("remap", "sym"): False,
}


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_opening_at_once(lab: Lab, outside: Outside, pair: tuple[Mode, Mode]) -> None:
    """Simultaneous open: each side's packet makes the way for the other's, if its mapping can be foretold."""
    # A full cone lets the first SYN in, to a host that has not sent its own yet: the two have to cross.
    delay_ms = 20 if "full" in pair else 0
    lans = [
        lab.lan(name, mode, delay_ms=delay_ms) for name, mode in zip(("left", "right"), pair, strict=True)
    ]
    hosts = [lan.host(f"{lan.name}-1") for lan in lans]
    first, second = (outside.endpoints[0].sees("udp", host) for host in hosts)
    assert punch(hosts, (second, first)) == (PAIRS[pair],) * 2
    first, second = (outside.endpoints[0].sees("tcp", host) for host in hosts)
    if PAIRS[pair]:
        assert open_at_once(hosts, (second, first)) == ("in", "in")
    else:
        # After a second Linux sends a SYN again.
        assert open_at_once(hosts, (second, first), seconds=1.3) == ("silence", "silence")


def test_a_full_cone_is_reached_from_behind_any_nat(lab: Lab, outside: Outside) -> None:
    full, symmetric = lab.lan("full", "full").host("a"), lab.lan("sym", "sym").host("b")
    with listener(full, PORT):
        expect("in", symmetric, outside.endpoints[0].sees("tcp", full))


@pytest.mark.parametrize("delay_ms", [0, 30])
def test_resets_and_opening_at_once(lab: Lab, outside: Outside, delay_ms: float) -> None:
    """A router that resets ends the attempt of the one that comes first. Where the line is long enough for
    both to be on their way, neither comes first."""
    hosts = [
        lab.lan(name, "prc", reject="rst", delay_ms=delay_ms).host(f"{name}-1") for name in ("left", "right")
    ]
    first, second = (outside.endpoints[0].sees("tcp", host) for host in hosts)
    if delay_ms:
        assert open_at_once(hosts, (second, first)) == ("in", "in")
    else:
        assert open_at_once(hosts, (second, first))[0] == "refused"


def test_what_is_not_a_mode() -> None:
    with pytest.raises(ValueError, match="'cone': not one of none, full, prc"):
        Nat("cone")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not one of drop, rst"):
        Nat("prc", "icmp")  # type: ignore[arg-type]


def test_no_hairpin(lab: Lab, outside: Outside) -> None:
    """A LAN's own public address leads to no host of it."""
    home = lab.lan("home")
    a, b = home.host("a"), home.host("b")
    with listener(a, PORT):
        expect("refused", b, outside.endpoints[0].sees("tcp", a))
        expect("in", b, (a.address, PORT))
