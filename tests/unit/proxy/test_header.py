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
        assert await header.receive_verdict(receiver) is verdict
    await sender.send_all(b"\x7f")
    with pytest.raises(ProtocolError, match="127"):
        await header.receive_verdict(receiver)
    await sender.aclose()
    with pytest.raises(ProtocolError):
        await header.receive_verdict(receiver)


def test_each_refusal_has_an_explanation() -> None:
    texts = [verdict.explain(8080, 80) for verdict in Verdict]
    assert texts[0] == ""
    assert all(texts[1:])
    assert len(set(texts)) == len(texts)
