"""Messages of the /hive protocols: round trip, and nothing but ProtocolError for what is none."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_one_way_pair, trio_test

from hived.overlay import wire
from hived.overlay.exchange import Batch, Digest, Open
from hived.overlay.membership import Answer, Confirm, Done, Hello
from hived.overlay.records import NodeRecord
from hived.overlay.wire import LENGTH_BYTES, Message, ProtocolError
from hived.proxy.header import Header

KINDS: list[type[Message]] = [Hello, Answer, Confirm, Done, Open, Digest, Batch, NodeRecord, Header]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def received(data: bytes, kind: type[Message], limit: int = wire.MAX_MESSAGE, split: int = 0) -> Message:
    """What a reader makes of a stream that holds ``data``, sent in two parts, and ends."""

    async def main() -> Message:
        sender, receiver = memory_stream_one_way_pair()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await sender.send_all(data[:split])
                await sender.send_all(data[split:])
                await sender.aclose()

            nursery.start_soon(send)
            return await wire.receive(receiver, kind, limit)

    try:
        return trio.run(main)
    except BaseExceptionGroup as group:
        # Not except*: what it raises is in a group again, in some versions of Python 3.11.
        raise group.exceptions[0] from None


@given(st.binary(max_size=64), st.binary(max_size=33), st.integers(0, 100))
def test_round_trip(network: bytes, share: bytes, split: int) -> None:
    message = Hello(network=network, share=share)
    assert received(wire.encode(message), Hello, split=split) == message


@given(st.sampled_from(KINDS), st.binary())
def test_any_bytes_decode_or_are_refused(kind: type[Message], data: bytes) -> None:
    with suppress(ProtocolError):
        assert isinstance(wire.decode(data, kind), kind)


@given(
    st.sampled_from(KINDS),
    VALUES | st.dictionaries(st.sampled_from(["network", "share", "have", "seq"]), VALUES),
)
def test_any_value_decodes_or_is_refused(kind: type[Message], value: object) -> None:
    """Well-formed MessagePack that is another type."""
    with suppress(ProtocolError):
        assert isinstance(wire.decode(msgspec.msgpack.encode(value), kind), kind)


def test_text_that_is_no_utf8() -> None:
    with pytest.raises(ProtocolError):
        wire.decode(b"\x81\xa4have\x81\xa1\xff\x01", Digest)


def test_deep_nesting() -> None:
    with pytest.raises(ProtocolError):
        wire.decode(b"\x91" * 100_000 + b"\xc0", Digest)
    assert wire.decode(b"\x81\xa1x" + b"\x91" * 50 + b"\xc0", Digest) == Digest()


def test_unknown_fields_are_for_later_versions() -> None:
    assert wire.decode(msgspec.msgpack.encode({"have": {"a": 1}, "later": [1, 2]}), Digest) == Digest(
        {"a": 1}
    )


@given(st.binary(max_size=40), st.integers(0, 40))
def test_any_stream_of_bytes(data: bytes, split: int) -> None:
    with suppress(ProtocolError):
        assert isinstance(received(data, Digest, 32, split), Digest)


@given(st.integers(0, 200))
def test_a_message_cut_short(end: int) -> None:
    data = wire.encode(Hello(network=b"n" * 32, share=b"s" * 33))
    if end < len(data):
        with pytest.raises(ProtocolError, match="ended inside"):
            received(data[:end], Hello)


def test_a_length_above_the_limit_is_refused_before_its_body() -> None:
    """The body is not waited for, so its size costs no memory."""
    for length in (101, 2**24, 2**32 - 1):
        with pytest.raises(ProtocolError, match="limit is 100"):
            received(length.to_bytes(LENGTH_BYTES, "big"), Hello, 100)


@trio_test
async def test_messages_follow_each_other() -> None:
    sender, receiver = memory_stream_one_way_pair()
    for number in range(3):
        await wire.send(sender, Digest({"a": number}))
    for number in range(3):
        assert await wire.receive(receiver, Digest) == Digest({"a": number})
