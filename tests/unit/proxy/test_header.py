"""The opening of a proxied connection: any bytes are a header or a ProtocolError."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_one_way_pair, trio_test

from hived.overlay import wire
from hived.overlay.wire import ProtocolError
from hived.proxy import header
from hived.proxy.header import Header, Verdict

PORTS = st.integers(1, 65535)


def read(data: bytes) -> Header:
    async def main() -> Header:
        sender, receiver = memory_stream_one_way_pair()
        await sender.send_all(data)
        await sender.aclose()
        return await header.receive_header(receiver)

    return trio.run(main)


@given(st.binary(max_size=100), PORTS, PORTS)
def test_round_trip(network: bytes, egress: int, ingress: int) -> None:
    message = Header(network=network, egress_port=egress, ingress_port=ingress)
    assert read(wire.encode(message)) == message


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    for text in (data, len(data).to_bytes(4, "big") + data):
        with pytest.raises(ProtocolError):
            read(text)


@pytest.mark.parametrize("port", [0, -1, 65536, 2**63])
def test_ports_out_of_range(port: int) -> None:
    for ports in ((port, 80), (80, port)):
        with pytest.raises(ProtocolError):
            read(wire.encode(Header(network=b"n", egress_port=ports[0], ingress_port=ports[1])))


def test_a_long_header() -> None:
    with pytest.raises(ProtocolError, match="limit"):
        read(wire.encode(Header(network=b"n" * 300, egress_port=1, ingress_port=1)))


@trio_test
async def test_verdicts() -> None:
    sender, receiver = memory_stream_one_way_pair()
    for verdict in Verdict:
        await header.send_verdict(sender, verdict)
        said = await receiver.receive_some(9)
        assert len(said) == 1
        assert header.parse_verdict(said[0]) is verdict
    with pytest.raises(ProtocolError, match="127"):
        header.parse_verdict(127)


@given(st.binary(max_size=100), PORTS, PORTS, st.binary(max_size=50), st.integers(0, 300))
def test_an_opening_is_found_once_it_is_whole(
    network: bytes, egress: int, ingress: int, rest: bytes, cut: int
) -> None:
    message = Header(network=network, egress_port=egress, ingress_port=ingress)
    opening = header.opening(message)
    assert header.parse_opening(opening + rest) == (message, rest)
    if cut < len(opening):
        assert header.parse_opening(opening[:cut]) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_an_opening_or_a_protocol_error_or_too_short(data: bytes) -> None:
    for text in (data, header.OPENING + data, header.OPENING + len(data).to_bytes(4, "big") + data):
        try:
            found = header.parse_opening(text)
        except ProtocolError:
            continue
        assert found is None
        assert len(text) < len(header.OPENING) + 4 + 256


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_an_opening_with_ports_out_of_range(port: int) -> None:
    for ports in ((port, 80), (80, port)):
        with pytest.raises(ProtocolError):
            header.parse_opening(
                header.opening(Header(network=b"n", egress_port=ports[0], ingress_port=ports[1]))
            )


def test_a_long_opening_is_refused_before_it_has_come() -> None:
    with pytest.raises(ProtocolError, match="300 bytes"):
        header.parse_opening(header.OPENING + (300).to_bytes(4, "big"))


def test_each_refusal_has_an_explanation() -> None:
    texts = [verdict.explain(8080, 80) for verdict in Verdict]
    assert texts[0] == ""
    assert all(texts[1:])
    assert len(set(texts)) == len(texts)
