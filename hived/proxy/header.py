"""The opening of ``/hive/proxy/1.0.0``.

Egress sends one Header and then the data at once; ingress answers with one status byte
before its first data, so that a refusal has a reason without costing a round trip.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import trio

from ..overlay.wire import LENGTH_BYTES, Message, ProtocolError, decode, encode, receive, send
from ..transport.multistream import answer, optimistic

PROXY: Final = "/hive/proxy/1.0.0"
# What an opener sends before its header, and ingress before its verdict, when both negotiate at once.
OPENING: Final = optimistic(PROXY)
ANSWER: Final = answer(PROXY)
_LIMIT: Final = 256


class Header(Message):
    """Which ingress is meant: both ports, in this network."""

    network: bytes
    egress_port: int
    ingress_port: int


class Verdict(IntEnum):
    """What ingress says before any data."""

    OPEN = 0
    NO_INGRESS = 1
    TARGET_REFUSED = 2
    BUSY = 3

    def explain(self, egress_port: int, ingress_port: int) -> str:
        """The verdict for people."""
        return {
            Verdict.OPEN: "",
            Verdict.NO_INGRESS: (
                "the other node lets nothing in from this node's port"
                f" {egress_port} to its port {ingress_port} (no ingress proxy there, or a disabled one:"
                " hivectl proxy on that node)"
            ),
            Verdict.TARGET_REFUSED: f"nothing answers there on port {ingress_port}",
            Verdict.BUSY: "the ingress proxy has no free connection",
        }[self]


async def send_header(stream: trio.abc.SendStream, header: Header) -> None:
    await send(stream, header)


async def receive_header(stream: trio.abc.ReceiveStream) -> Header:
    """The header of a new stream. Raises ProtocolError."""
    return _checked(await receive(stream, Header, _LIMIT))


def parse_opening(data: bytes) -> tuple[Header, bytes] | None:
    """The header of a stream that negotiates at once, and what follows it; None while more is needed.

    Raises ProtocolError when ``data`` does not begin so.
    """
    if not data.startswith(OPENING):
        if OPENING.startswith(data):
            return None
        raise ProtocolError("another opening")
    start = len(OPENING) + LENGTH_BYTES
    length = int.from_bytes(data[len(OPENING) : start], "big")
    if len(data) >= start and length > _LIMIT:
        raise ProtocolError(f"a header of {length} bytes")
    end = start + length
    if len(data) < start or len(data) < end:
        return None
    return _checked(decode(data[start:end], Header)), data[end:]


def _checked(header: Header) -> Header:
    if not (0 < header.egress_port < 65536 and 0 < header.ingress_port < 65536):
        raise ProtocolError("a proxy header with a port out of range")
    return header


def opening(header: Header) -> bytes:
    """What egress sends at once: protocol and header; the data follows."""
    return OPENING + encode(header)


async def send_verdict(stream: trio.abc.SendStream, verdict: Verdict) -> None:
    await stream.send_all(bytes([verdict]))


def parse_verdict(byte: int) -> Verdict:
    """Ingress's first byte. Raises ProtocolError for an unknown one."""
    try:
        return Verdict(byte)
    except ValueError:
        raise ProtocolError(f"an unknown verdict {byte}") from None
