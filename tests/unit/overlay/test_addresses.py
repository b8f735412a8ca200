"""Multiaddrs: which Hive can use, and what a listener's mean for others."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hived.errors import HiveError, Kind
from hived.overlay import addresses
from hived.overlay.addresses import Endpoint, source_of

PORTS = st.integers(0, 65535)
LABEL = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True)
HOSTS = st.one_of(
    st.builds(lambda ip: ("ip4", str(ip)), st.ip_addresses(v=4)),
    st.builds(lambda ip: ("ip6", str(ip)), st.ip_addresses(v=6)),
    st.builds(
        lambda k, n: (k, ".".join(n)),
        st.sampled_from(["dns", "dns4", "dns6"]),
        st.lists(LABEL, min_size=1, max_size=4),
    ),
)
PEER = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"


@given(HOSTS, PORTS)
def test_round_trip(host: tuple[str, str], port: int) -> None:
    end = addresses.parse(f"/{host[0]}/{host[1]}/tcp/{port}")
    assert (end.kind, end.port) == (host[0], port)
    if host[0].startswith("ip"):
        assert ipaddress.ip_address(end.host) == ipaddress.ip_address(host[1])
    assert addresses.parse(str(end)) == end
    assert addresses.parse(f"{end}/p2p/{PEER}") == end


PART = st.sampled_from(
    [
        "ip4",
        "ip6",
        "dns",
        "dns4",
        "tcp",
        "udp",
        "quic",
        "p2p",
        "1.2.3.4",
        "::1",
        "80",
        "99999",
        PEER,
        "unix",
        "ip6zone",
        "p2p-circuit",
        "",
    ]
)


@given(
    st.text()
    | st.lists(PART, max_size=8).map("/".join)
    | st.lists(PART, max_size=8).map(lambda p: "/" + "/".join(p))
)
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        end = addresses.parse(text)
    except ValueError:
        return
    assert addresses.parse(str(end)) == end


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "1.2.3.4:80",
        "/ip4/1.2.3.4",
        "/ip4/1.2.3.4/udp/80",
        "/ip4/1.2.3.4/tcp/65536",
        "/ip4/1.2.3.4/tcp/-1",
        "/ip4/1.2.3.4.5/tcp/1",
        "/ip4/1.2.3.4/tcp/1/ws",
        "/ip6/::1/tcp/1/tcp/2",
        "/dns/a b/tcp/1",
        "/dns/a..b/tcp/1",
        "/dns/" + "a" * 64 + "/tcp/1",
        "/dns/\N{LATIN SMALL LETTER O WITH DIAERESIS}/tcp/1",
        "/ip4/1.2.3.4/tcp/1" + "/" * 300,
    ],
)
def test_what_hive_cannot_use(text: str) -> None:
    with pytest.raises(ValueError):
        addresses.parse(text)
    with pytest.raises(HiveError) as caught:
        addresses.parse_setting(text, "listen")
    assert caught.value.kind is Kind.USAGE
    assert "--listen" in caught.value.line()


def test_of_socket() -> None:
    assert addresses.of_socket(("1.2.3.4", 5)) == "/ip4/1.2.3.4/tcp/5"
    assert addresses.of_socket(("::ffff:1.2.3.4", 5)) == "/ip4/1.2.3.4/tcp/5"
    assert addresses.of_socket(("fe80::1%lo", 5)) == "/ip6/fe80::1/tcp/5"


def test_interface_addresses_can_be_reached() -> None:
    """Never link-local, unspecified or nothing; loopback only when there is nothing else."""
    found = [ipaddress.ip_address(text) for text in addresses.interface_addresses()]
    assert found
    assert len(found) == len(set(found))
    assert not any(ip.is_link_local or ip.is_unspecified for ip in found)
    assert not any(ip.is_loopback for ip in found) or len(found) == 1
    assert [ip.is_global for ip in found] == sorted((ip.is_global for ip in found), reverse=True)


def test_announced() -> None:
    wanted = ["/dns/box.example/tcp/1"]
    found = addresses.announced(["/ip4/127.0.0.1/tcp/9", "/ip4/127.0.0.1/tcp/9"], wanted)
    assert found == ["/dns/box.example/tcp/1", "/ip4/127.0.0.1/tcp/9"]
    wild = addresses.announced(["/ip4/0.0.0.0/tcp/9", "/ip6/::/tcp/9"], [])
    ends = [addresses.parse(text) for text in wild]
    assert {end.host for end in ends} == set(addresses.interface_addresses())
    assert {end.port for end in ends} == {9}
    assert addresses.announced([], []) == []


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("/ip4/192.168.1.1/tcp/1", True),
        ("/ip4/127.0.0.1/tcp/1", True),
        ("/ip6/fd00::1/tcp/1", True),
        ("/ip4/8.8.8.8/tcp/1", False),
        ("/dns/localhost/tcp/1", False),
    ],
)
def test_is_private(text: str, private: bool) -> None:
    assert addresses.is_private(text) is private


def test_end_points_compare() -> None:
    assert addresses.parse("/ip4/1.2.3.4/tcp/5") == Endpoint("ip4", "1.2.3.4", 5)


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("/ip4/192.0.2.7/tcp/1", "/ip4/192.0.2.7"),
        ("/ip6/2001:db8:1:2:3:4:5:6/tcp/1", "/ip6/2001:db8:1:2::/64"),
        ("/ip6/2001:db8:1:2:ffff::1/tcp/9", "/ip6/2001:db8:1:2::/64"),
        ("/dns4/example.org/tcp/1", "/dns4/example.org"),
    ],
)
def test_the_source_that_a_limit_holds_for(address: str, source: str) -> None:
    assert source_of(address) == source
