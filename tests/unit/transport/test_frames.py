"""The frame codec: any split of any bytes, and the headers of a hostile peer."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hived.transport.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER_BYTES,
    INITIAL_WINDOW,
    MAX_FRAME,
    MAX_PAYLOAD,
    NORMAL,
    PING,
    PROTOCOL_ERROR,
    RST,
    SYN,
    WINDOW_UPDATE,
    Decoder,
    Frame,
    ProtocolError,
    header,
)

flags = st.integers(0, 15)
stream_ids = st.integers(1, 2**32 - 1)
uint32 = st.integers(0, 2**32 - 1)


@st.composite
def data_frames(draw: st.DrawFn) -> Frame:
    payload = draw(st.binary(max_size=100))
    return Frame(DATA, draw(flags), draw(stream_ids), len(payload), payload)


frames = st.one_of(
    data_frames(),
    st.builds(Frame, st.just(WINDOW_UPDATE), flags, stream_ids, uint32, st.just(b"")),
    st.builds(Frame, st.sampled_from([PING, GO_AWAY]), flags, uint32, uint32, st.just(b"")),
)


def encoded(frame: Frame) -> bytes:
    return header(*frame[:4]) + bytes(frame.payload)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


def whole(parts: list[Frame]) -> list[Frame]:
    """Frames put together again from their parts, checking the rules that parts follow."""
    found: list[Frame] = []
    for part in parts:
        last = found[-1] if found else None
        if last is not None and last.kind == DATA and len(last.payload) < last.length:
            assert part.continues
            assert part.kind == DATA
            assert part.stream_id == last.stream_id
            assert not part.flags & ~FIN
            payload = bytes(last.payload) + bytes(part.payload)
            found[-1] = last._replace(flags=last.flags | part.flags, payload=payload)
            assert not part.flags or len(found[-1].payload) == last.length, "FIN before the last part"
        else:
            assert not part.continues
            found.append(part)
    return found


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 900), max_size=30))
def test_any_split_of_any_frames_gives_the_same_frames(expected: list[Frame], cuts: list[int]) -> None:
    decoder = Decoder()
    parts: list[Frame] = []
    for piece in split(b"".join(map(encoded, expected)), cuts):
        parts.extend(decoder.feed(piece))
    assert whole(parts) == expected


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_any_bytes_are_frames_or_a_protocol_error(data: bytes, cuts: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> tuple[list[Frame], str]:
        decoder = Decoder(max_frame=64)
        frames: list[Frame] = []
        try:
            for piece in pieces:
                for frame in decoder.feed(piece):
                    assert len(frame.payload) <= len(piece), "more came out than went in"
                    frames.append(frame)
        except ProtocolError as error:
            return frames, str(error)
        return frames, ""

    assert outcome([data])[1] == outcome(split(data, cuts))[1]


@given(st.lists(frames, min_size=1, max_size=4), st.binary(min_size=1, max_size=12))
def test_the_frames_before_a_bad_one_come_out(expected: list[Frame], junk: bytes) -> None:
    coming = Decoder().feed(b"".join(map(encoded, expected)) + b"\x01" + bytes(11) + junk)
    parts = [next(coming) for _ in expected]
    with pytest.raises(ProtocolError):
        next(coming)
    assert whole(parts) == expected


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_it_takes_any_buffer(kind: type) -> None:
    (frame,) = Decoder().feed(kind(encoded(Frame(DATA, SYN, 1, 2, b"hi"))))
    assert frame == Frame(DATA, SYN, 1, 2, b"hi")
    assert type(frame.payload) is memoryview, "who keeps it copies it"


def test_a_payload_is_a_view_of_what_was_fed() -> None:
    wire = bytearray(encoded(Frame(DATA, 0, 1, 4, b"wire")))
    (frame,) = Decoder().feed(wire)
    wire[-4:] = b"buff"
    assert bytes(frame.payload) == b"buff"


def test_idle_is_between_two_frames() -> None:
    decoder = Decoder()
    assert decoder.idle
    for byte in encoded(Frame(DATA, 0, 1, 2, b"hi")):
        assert decoder.idle == (byte == 0 and decoder._header == b"" and not decoder._missing)
        list(decoder.feed(bytes([byte])))
    assert decoder.idle


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"\x01" + bytes(11), "version 1"),
        (b"\xff" * 12, "version 255"),
        (b"\x00\x04" + bytes(10), "type 4"),
        (b"\x00\xff" + bytes(10), "type 255"),
        (header(DATA, 0, 0, 0), "stream 0"),
        (header(WINDOW_UPDATE, SYN, 0, 0), "stream 0"),
        (header(DATA, 0, 1, MAX_FRAME + 1), "16777217 bytes"),
        (header(DATA, SYN, 1, 2**32 - 1), "4294967295 bytes"),
    ],
)
def test_hostile_headers(head: bytes, why: str) -> None:
    decoder = Decoder()
    with pytest.raises(ProtocolError, match=why):
        list(decoder.feed(head))
    with pytest.raises(ProtocolError, match=why):
        list(decoder.feed(encoded(Frame(PING, SYN, 0, 1))))


def test_flags_of_the_future_are_ignored() -> None:
    assert list(Decoder().feed(b"\x00\x01\xff\xf1" + bytes(3) + b"\x01" + bytes(4))) == [
        Frame(WINDOW_UPDATE, SYN, 1, 0)
    ]


def test_the_largest_frame_is_announced_without_its_payload() -> None:
    decoder = Decoder()
    assert list(decoder.feed(header(DATA, SYN | FIN, 5, MAX_FRAME))) == [Frame(DATA, SYN, 5, MAX_FRAME)]
    assert list(decoder.feed(b"abc")) == [Frame(DATA, 0, 5, 0, b"abc")]


@pytest.mark.parametrize(
    ("frame", "wire"),
    [
        # Written down by hand from the specification's "Framing".
        (Frame(WINDOW_UPDATE, SYN, 1, 0), "00 01 0001 00000001 00000000"),
        (Frame(WINDOW_UPDATE, ACK, 1, 0x40000), "00 01 0002 00000001 00040000"),
        (Frame(DATA, 0, 3, 5, b"hello"), "00 00 0000 00000003 00000005 68656c6c6f"),
        (Frame(DATA, FIN, 3, 0), "00 00 0004 00000003 00000000"),
        (Frame(WINDOW_UPDATE, RST, 2, 0), "00 01 0008 00000002 00000000"),
        (Frame(DATA, SYN | FIN, 7, 1, b"x"), "00 00 0005 00000007 00000001 78"),
        (Frame(PING, SYN, 0, 0xDEADBEEF), "00 02 0001 00000000 deadbeef"),
        (Frame(PING, ACK, 0, 0xDEADBEEF), "00 02 0002 00000000 deadbeef"),
        (Frame(GO_AWAY, 0, 0, NORMAL), "00 03 0000 00000000 00000000"),
        (Frame(GO_AWAY, 0, 0, PROTOCOL_ERROR), "00 03 0000 00000000 00000001"),
    ],
)
def test_the_wire_format(frame: Frame, wire: str) -> None:
    assert encoded(frame) == bytes.fromhex(wire)
    assert list(Decoder().feed(bytes.fromhex(wire))) == [frame]


def test_sizes() -> None:
    assert HEADER_BYTES == 12
    assert INITIAL_WINDOW == 256 * 1024
    assert MAX_PAYLOAD == 65507, "a full frame is one Noise message"
