"""Agreeing on a protocol: the words, cut anywhere, and not a byte beyond them."""

from __future__ import annotations

import contextlib

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair, trio_test

from hived.transport.multistream import (
    HEADER,
    MAX_LINE,
    MAX_PROPOSALS,
    Decoder,
    HandshakeError,
    NotSpokenError,
    answer,
    line,
    negotiate,
    optimistic,
    select,
)


class Wire:
    """A pipe that holds what the other side says and gives it in pieces; it keeps what is said to it."""

    def __init__(self, says: bytes, pieces: list[int] | None = None) -> None:
        self.left = says
        self.heard = b""
        self._pieces = list(pieces or [])

    async def send_all(self, data: bytes, /) -> None:
        self.heard += data

    async def receive_some(self, max_bytes: int, /) -> bytes:
        assert max_bytes > 0
        count = min(max_bytes, self._pieces.pop() if self._pieces else max_bytes)
        data, self.left = self.left[:count], self.left[count:]
        return data


pieces = st.lists(st.integers(1, 5), max_size=80)
names = st.text("abc/0.", min_size=1, max_size=40).map(lambda text: "/" + text)


def test_the_words() -> None:
    assert line("/multistream/1.0.0") == b"\x13/multistream/1.0.0\n"
    assert line("na") == b"\x03na\n"
    assert line("/" + "a" * 200) == b"\xca\x01/" + b"a" * 200 + b"\n"
    assert optimistic("/a") == answer("/a") == b"\x13/multistream/1.0.0\n\x03/a\n"


@given(st.lists(st.text(max_size=300).filter(lambda text: len(text.encode()) < MAX_LINE), max_size=5), pieces)
def test_lines_in_any_pieces(texts: list[str], cuts: list[int]) -> None:
    wire = b"".join(map(line, texts))
    decoder, got = Decoder(), []
    while wire:
        cut = cuts.pop() if cuts else len(wire)
        decoder.feed(wire[:cut])
        wire = wire[cut:]
        while (text := decoder.text()) is not None:
            got.append(text)
    assert got == texts
    assert decoder.empty


@given(st.binary(max_size=100))
def test_a_decoder_knows_only_one_error(data: bytes) -> None:
    decoder = Decoder()
    decoder.feed(data)
    try:
        while decoder.text() is not None:
            pass
        assert 1 <= decoder.missing(1) <= MAX_LINE + 2
    except HandshakeError:
        pass


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x00", "empty"),
        (b"\x80\x00", "empty"),
        (b"\x81\x08", "too long"),
        (b"\xff\xff", None),
        (b"\xff\xff\x01", "too long"),
        (b"\x80\x80\x80\x80", "too long"),
        (b"\x02ab", "without an end"),
        (b"\x80\x08" + b"a" * (MAX_LINE - 1) + b"\n", None),
    ],
)
def test_what_is_no_line(data: bytes, why: str | None) -> None:
    decoder = Decoder()
    decoder.feed(data)
    if why is None and data[0] == 0x80:
        assert decoder.text() == "a" * (MAX_LINE - 1)
    elif why is None:
        with pytest.raises(HandshakeError, match="too long"):
            decoder.text()
    else:
        with pytest.raises(HandshakeError, match=why):
            decoder.text()


@settings(deadline=None)
@given(st.lists(names, min_size=1, max_size=4, unique=True), st.data(), pieces, st.binary(max_size=40))
def test_a_dialer_who_says_all_at_once(
    protocols: list[str], data: st.DataObject, cuts: list[int], behind: bytes
) -> None:
    """Proposals that are refused, then one that is taken, then data: which stays where it is."""
    wanted = data.draw(st.sampled_from(protocols))
    refused = data.draw(st.lists(names.filter(lambda n: n not in protocols) | st.just("ls"), max_size=4))
    wire = Wire(b"".join(map(line, [HEADER, *refused, wanted])) + behind, cuts)
    assert trio.run(negotiate, wire, protocols) == wanted
    assert wire.left == behind
    assert wire.heard == b"".join(map(line, [HEADER, *["na"] * len(refused), wanted]))


@settings(deadline=None)
@given(st.lists(names, min_size=1, max_size=4, unique=True), st.data(), pieces, st.binary(max_size=40))
def test_a_listener_in_any_pieces(
    protocols: list[str], data: st.DataObject, cuts: list[int], behind: bytes
) -> None:
    spoken = set(data.draw(st.lists(st.sampled_from(protocols), max_size=4)))
    client, server = memory_stream_pair()

    async def serve() -> None:
        """Answers each proposal when it has come, piece by piece, and sends ``behind`` with the last."""
        heard = bytearray()
        at = len(line(HEADER))
        replies = [HEADER]
        for protocol in protocols:
            while len(heard) < at + len(line(protocol)):
                part = await server.receive_some()
                if not part:
                    return
                heard += part
            at += len(line(protocol))
            replies.append(protocol if protocol in spoken else "na")
            said = b"".join(map(line, replies)) + (behind if protocol in spoken else b"")
            replies = []
            while said:
                cut = cuts.pop() if cuts else len(said)
                await server.send_all(said[:cut])
                said = said[cut:]
            if protocol in spoken:
                return

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            if not spoken:
                with pytest.raises(NotSpokenError):
                    await select(client, *protocols)
                return
            assert await select(client, *protocols) == next(p for p in protocols if p in spoken)
        await server.aclose()
        rest = b""
        while part := await client.receive_some(7):
            rest += part
        assert rest == behind

    trio.run(main)


@trio_test
async def test_what_a_dialer_sends_and_reads() -> None:
    wire = Wire(answer("/b") + b"data")
    assert await select(wire, "/b") == "/b"
    assert (wire.heard, wire.left) == (optimistic("/b"), b"data")


@trio_test
async def test_nothing_of_it_is_spoken() -> None:
    with pytest.raises(NotSpokenError, match=r"/a or /b is not spoken there"):
        await select(Refusing(), "/a", "/b")
    with pytest.raises(HandshakeError, match=r"/a was not agreed: the connection ended") as caught:
        await select(Wire(line(HEADER)), "/a")
    assert not isinstance(caught.value, NotSpokenError)


class Refusing(Wire):
    """Says ``na`` to each proposal, when it is made."""

    def __init__(self) -> None:
        super().__init__(b"")

    async def send_all(self, data: bytes, /) -> None:
        greets = not self.heard
        await super().send_all(data)
        self.left += (line(HEADER) if greets else b"") + line("na")


@pytest.mark.parametrize(
    "says",
    [
        line("/multistream/2.0.0"),
        line(HEADER) + line("/c"),
        line(HEADER) + b"\x00",
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
)
@trio_test
async def test_a_listener_that_talks_nonsense(says: bytes) -> None:
    with pytest.raises(HandshakeError, match="was not agreed") as caught:
        await select(Wire(says), "/a", "/b")
    assert not isinstance(caught.value, NotSpokenError)


@trio_test
async def test_a_listener_that_answers_before_it_is_asked() -> None:
    with pytest.raises(HandshakeError, match="answer to nothing"):
        await select(Wire(line(HEADER) + line("na") + line("/b") + b"data"), "/a/long/one", "/b")


@trio_test
async def test_another_protocol_than_was_asked_for() -> None:
    """Is no refusal: whoever says that speaks another language."""
    with pytest.raises(HandshakeError, match="the answer was '/b'") as caught:
        await select(Wire(line(HEADER) + line("/b")), "/a")
    assert not isinstance(caught.value, NotSpokenError)


@trio_test
async def test_another_version_is_not_spoken_even_where_the_rest_fits() -> None:
    said = line("/multistream/2.0.0") + line("/a")
    with pytest.raises(HandshakeError, match="in place of"):
        await select(Wire(said), "/a")
    with pytest.raises(HandshakeError, match="in place of"):
        await negotiate(Wire(said), ["/a"])


def test_a_line_that_is_no_text() -> None:
    decoder = Decoder()
    decoder.feed(b"\x03\xff\xfe\n" + line("/a"))
    assert decoder.text() == "\N{REPLACEMENT CHARACTER}" * 2
    assert decoder.text() == "/a"


@trio_test
async def test_who_asks_for_ever() -> None:
    with pytest.raises(HandshakeError, match="no protocol"):
        await negotiate(Wire(line(HEADER) + line("ls") * MAX_PROPOSALS + line("/a")), ["/a"])
    wire = Wire(line(HEADER) + line("ls") * (MAX_PROPOSALS - 1) + line("/a"))
    assert await negotiate(wire, ["/a"]) == "/a"


@trio_test
async def test_nothing_is_offered() -> None:
    with pytest.raises(HandshakeError, match="no protocol"):
        await negotiate(Wire(optimistic("/a")), [])


@trio_test
async def test_a_dialer_that_waits_for_the_greeting() -> None:
    """As some do: the header must come before any proposal was made."""
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(negotiate, server, ["/a"])
        await client.send_all(line(HEADER))
        got = b""
        while len(got) < len(line(HEADER)):
            got += await client.receive_some()
        assert got == line(HEADER)
        await client.send_all(line("/a"))
        assert await client.receive_some() == line("/a")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from([line(HEADER), line("na"), line("ls"), line("/a"), b"\xff", b"\x00"])
        | st.binary(max_size=9),
        max_size=6,
    ).map(b"".join),
    pieces,
)
def test_any_bytes_end_in_one_kind_of_error(data: bytes, cuts: list[int]) -> None:
    async def main() -> None:
        for way in (select(Wire(data, cuts), "/a", "/b"), negotiate(Wire(data, cuts), ["/a", "/b"])):
            with contextlib.suppress(HandshakeError):
                assert await way in ("/a", "/b")

    trio.run(main, clock=MockClock(autojump_threshold=0))


@trio_test
async def test_a_pipe_that_breaks() -> None:
    client, server = memory_stream_pair()
    await server.aclose()
    with pytest.raises(HandshakeError, match="ended"):
        await select(client, "/a")
    await client.aclose()
    with pytest.raises(HandshakeError, match="ended"):
        await negotiate(client, ["/a"])
