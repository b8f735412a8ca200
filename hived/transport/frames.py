"""Yamux frames (/yamux/1.0.0) as bytes: a decoder and an encoder without any I/O.

Section names are those of libp2p's yamux specification. A frame is a header of 12 bytes,
{version 8, type 8, flags 16, stream ID 32, length 32}, all big-endian; only Data frames
have a payload behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

# "Framing", type field.
DATA: Final = 0
WINDOW_UPDATE: Final = 1
PING: Final = 2
GO_AWAY: Final = 3

# "Framing", flag field.
SYN: Final = 1
ACK: Final = 2
FIN: Final = 4
RST: Final = 8
_FLAGS: Final = SYN | ACK | FIN | RST

# "Session termination", error codes of GoAway.
NORMAL: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2

HEADER_BYTES: Final = 12
# What both sides assume of a new stream ("Flow control").
INITIAL_WINDOW: Final = 256 * 1024
# One full frame is one Noise message: 65535 - 16 (tag), and the header is part of it.
MAX_BATCH: Final = 65535 - 16
MAX_PAYLOAD: Final = MAX_BATCH - HEADER_BYTES
# No peer has a reason to announce more in one frame: it is go-yamux's largest window.
MAX_FRAME: Final = 16 * 1024 * 1024
MAX_STREAM_ID: Final = 2**32 - 1
MAX_LENGTH: Final = 2**32 - 1

_HEADER: Final = struct.Struct("!BBHII")


class ProtocolError(Exception):
    """The peer broke yamux; the text says how. The connection cannot go on."""


class Frame(NamedTuple):
    """One frame, or one part of a Data frame.

    A Data frame is handed on as its bytes arrive, so that nobody has to hold it whole.
    Its first part carries the flags but FIN, and ``length``, the payload bytes of the
    whole frame; the parts that follow have length 0; FIN comes with the last part.
    For the other types ``length`` is the header's: window credit in bytes, the opaque
    value of a ping, the code of a GoAway. ``payload`` is a view of what was fed to the
    decoder: who keeps it copies it.
    """

    kind: int
    flags: int
    stream_id: int
    length: int
    payload: bytes | memoryview = b""

    @property
    def continues(self) -> bool:
        """This is a later part of a Data frame."""
        return self.length == 0 and len(self.payload) > 0


def header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """The 12 bytes before a payload of ``length``, or a whole frame of another type."""
    return _HEADER.pack(0, kind, flags, stream_id, length)


class Decoder:
    """Bytes in, frames out. Holds at most an unfinished header (11 bytes) between calls.

    ``max_frame`` bounds the payload, in bytes, that one Data frame may announce. ``position``: within what
    is being fed, where the next frame or part begins.
    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._max_frame = max_frame
        self._header = b""
        self._stream_id = 0
        self._missing = 0
        self._fin = 0
        self._broken: str | None = None
        # Of what is being fed, behind the frame that was yielded last.
        self.position = 0

    @property
    def idle(self) -> bool:
        """The next byte is the first of a frame."""
        return not (self._missing or self._header)

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Frame]:
        """The frames that ``data`` completes.

        Exhaust it before the next call, or feed it again from ``position``.
        Raises ProtocolError after the frames before the bad one, and for ever after:
        there is no finding the next header.
        """
        if self._broken is not None:
            raise ProtocolError(self._broken)
        at, end = 0, len(data)
        with memoryview(data) as view:
            while at < end:
                if self._missing:
                    part = view[at : at + self._missing]
                    at += len(part)
                    self._missing -= len(part)
                    self.position = at
                    yield Frame(DATA, 0 if self._missing else self._fin, self._stream_id, 0, part)
                    continue
                if self._header or end - at < HEADER_BYTES:
                    missing = HEADER_BYTES - len(self._header)
                    self._header += bytes(view[at : at + missing])
                    at = min(at + missing, end)
                    if len(self._header) < HEADER_BYTES:
                        return
                    kind, flags, stream_id, length = self.parse(self._header, 0)
                    self._header = b""
                else:
                    kind, flags, stream_id, length = self.parse(view, at)
                    at += HEADER_BYTES
                if kind != DATA:
                    self.position = at
                    yield Frame(kind, flags, stream_id, length)
                    continue
                part = view[at : at + length]
                at += len(part)
                self._missing = length - len(part)
                if self._missing:
                    self._stream_id, self._fin = stream_id, flags & FIN
                    flags &= ~FIN
                self.position = at
                yield Frame(DATA, flags, stream_id, length, part)

    def parse(self, data: bytes | memoryview, at: int) -> tuple[int, int, int, int]:
        """Type, flags, stream ID and length of the header at ``at``. Raises as ``feed``."""
        version, kind, flags, stream_id, length = _HEADER.unpack_from(data, at)
        if version != 0:
            self._fail(f"version {version} of yamux is not known")
        if kind > GO_AWAY:
            self._fail(f"frame type {kind} is not known")
        if kind <= WINDOW_UPDATE and stream_id == 0:
            self._fail("a stream's frame on stream 0, which is the session")
        if kind == DATA and length > self._max_frame:
            self._fail(f"a frame of {length} bytes")
        # Flags that a later revision may add say nothing to us.
        return kind, flags & _FLAGS, stream_id, length

    def _fail(self, why: str) -> None:
        self._broken = why
        raise ProtocolError(why)
