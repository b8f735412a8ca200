"""Yamux: any bytes are frames, the same however they are cut, or a ProtocolError; and whatever frames and our
own side do to a connection, it keeps its bounds, speaks yamux itself, and gives back all it has taken.

First byte: bytes for the decoder, and where they are cut; else steps in the life of a session, of the peer's
and of ours in turn.
"""

from __future__ import annotations

from hived.transport.frames import DATA, FIN, HEADER_BYTES, Decoder, Frame, ProtocolError, header

from .lives import lives
from .session import life
from .target import Script, Target

MAX_FRAME = 64
"""What the decoder takes at most, so that short inputs reach it."""

Outcome = tuple[list[tuple[int, int, int, int, bytes]], str]


def decoded(pieces: list[bytes]) -> Outcome:
    """The frames in bytes that come in pieces, put together again, and why they ended ("": they did not)."""
    decoder = Decoder(MAX_FRAME)
    found: list[Frame] = []
    try:
        for piece in pieces:
            for part in decoder.feed(piece):
                kept = part._replace(payload=bytes(part.payload))
                if not kept.continues:
                    found.append(kept)
                    continue
                last = found[-1]
                assert (kept.kind, kept.stream_id) == (last.kind, last.stream_id) == (DATA, last.stream_id)
                assert not kept.flags & ~FIN
                assert not last.flags & FIN, "FIN before the last part"
                payload = bytes(last.payload) + bytes(kept.payload)
                found[-1] = last._replace(flags=last.flags | kept.flags, payload=payload)
    except ProtocolError as error:
        why = str(error)
        assert refusal(decoder) == why, "it goes on behind an error"
    else:
        why = ""
    return [(f.kind, f.flags, f.stream_id, f.length, bytes(f.payload)) for f in found], why


def refusal(decoder: Decoder) -> str:
    """Why a decoder takes no good frame; "" when it does."""
    try:
        list(decoder.feed(header(DATA, 0, 1, 0)))
    except ProtocolError as error:
        return str(error)
    return ""


def decode(script: Script) -> None:
    """Two numbers make the cuts; the rest is what comes."""
    first, step = script.byte(), script.byte() % 16 + 1
    data = script.rest()
    whole, why = decoded([data])
    cuts = [data[:first], *(data[at : at + step] for at in range(first, len(data), step))]
    assert decoded(cuts) == (whole, why)
    assert decoded([bytes([byte]) for byte in data]) == (whole, why)
    for kind, flags, stream_id, length, payload in whole:
        assert 0 <= kind <= 3
        assert 0 <= flags <= 15
        assert stream_id or kind > 1
        assert (len(payload) <= length <= MAX_FRAME) if kind == DATA else not payload
    # Nothing is left out and nothing invented: with what is unfinished, it is as long as the input.
    sizes = sum(HEADER_BYTES + len(payload) for *_, payload in whole)
    assert sizes <= len(data)
    assert why or len(data) - sizes < HEADER_BYTES


def run(data: bytes) -> None:
    script = Script(data)
    (decode, life)[script.byte() & 1](script)


def seeds() -> list[bytes]:
    spoken = [
        b"",
        header(DATA, 1, 1, 5) + b"hello" + header(DATA, FIN, 1, 3) + b"end" + header(1, 0, 1, 9),
        header(2, 1, 0, 7) + header(3, 0, 0, 0) + header(0, 15, 2, 0),
        header(DATA, FIN, 1, MAX_FRAME) + bytes(MAX_FRAME) + header(DATA, 0, 1, MAX_FRAME + 1),
        header(DATA, 0xFFF0, 3, 1) + b"x" + b"\x01" + bytes(11),
        header(4, 0, 1, 0),
        header(1, 0, 0, 1),
    ]
    cut = [b"\0\0\0", b"\0\x05\x0f", b"\0\xff\x03"]
    return [c + s for s in spoken for c in cut] + [b"\1" + s for s in lives()]


TARGET = Target("frames", run, seeds)
