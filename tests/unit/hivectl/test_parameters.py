"""Ports, PEER:PORT, nodes and names."""

from __future__ import annotations

import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivectl.parameters import parse_id, parse_name, parse_node, parse_port, parse_target

peers = st.text(string.ascii_letters + string.digits + "._~-", min_size=1, max_size=128)


@given(peers, st.integers(1, 65535))
def test_a_target_is_a_peer_and_a_port(peer: str, port: int) -> None:
    assert parse_target(f"{peer}:{port}") == (peer, port)


@given(peers, st.integers().filter(lambda port: not 1 <= port <= 65535))
def test_a_port_out_of_range_is_no_target(peer: str, port: int) -> None:
    with pytest.raises(ValueError):
        parse_target(f"{peer}:{port}")


@given(st.text(), st.text())
def test_any_text_with_a_colon_names_its_peer_or_is_refused(before: str, after: str) -> None:
    text = f"{before}:{after}"
    with contextlib.suppress(ValueError):
        target = parse_target(text)
        assert f"{target.peer}:" == text[: len(target.peer) + 1]
        assert ":" not in target.peer
        assert 1 <= target.port <= 65535


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("web-1.lan", "has no port: write NODE:PORT, such as web-1.lan:8080"),
        ("", "has no port"),
        (":80", "the node's name is empty"),
        ("web:", "is not a port"),
        ("web:http", "is not a port"),
        ("web:0", "out of range: 1 to 65535"),
        ("web:65536", "out of range: 1 to 65535"),
        ("web:+80", "is not a port"),
        ("web: 80", "is not a port"),
        ("web:8_0", "is not a port"),
        ("web:٨٠", "is not a port"),
        ("web:" + "9" * 5000, "out of range"),
        ("fe80::1:80", "not by an address"),
        ("[::1]:80", "not by an address"),
        ("a b:80", "is not a node"),
        ("a\x1b:80", "is not a node"),
        ("x" * 129 + ":80", "is not a node"),
    ],
)
def test_what_is_no_target_and_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        parse_target(text)
    assert reason in str(caught.value)


@pytest.mark.parametrize("text", ["1", "80", "0080", "65535"])
def test_ports(text: str) -> None:
    assert parse_port(text) == int(text)


def test_a_contested_name_is_a_node() -> None:
    assert parse_node("web~A1b2C3") == "web~A1b2C3"


@pytest.mark.parametrize("text", ["", "-a", ".a", "a/b", "a" * 64, "a\n", "ä"])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a name: a name is 1 to 63 of"):
        parse_name(text)


@pytest.mark.parametrize("text", ["", "-1", "x", "1" * 19])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="is not an ID"):
        parse_id(text)
