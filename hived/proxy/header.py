"""The opening of ``/hive/proxy/1.0.0``.

Egress sends one Header and then the data at once; ingress answers with one status byte
before its first data, so that a refusal has a reason without costing a round trip.
"""

from __future__ import annotations

from enum import IntEnum

import trio

from ..overlay.wire import Message, ProtocolError, receive, receive_exactly, send

PROXY = "/hive/proxy/1.0.0"
_LIMIT = 256


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
                f" {egress_port} to its port {ingress_port} (no ingress proxy)"
            ),
            Verdict.TARGET_REFUSED: f"nothing answers there on port {ingress_port}",
            Verdict.BUSY: "the ingress proxy has no free connection",
        }[self]


async def send_header(stream: trio.abc.SendStream, header: Header) -> None:
    await send(stream, header)


async def receive_header(stream: trio.abc.ReceiveStream) -> Header:
    """The header of a new stream. Raises ProtocolError."""
    header = await receive(stream, Header, _LIMIT)
    if not (0 < header.egress_port < 65536 and 0 < header.ingress_port < 65536):
        raise ProtocolError("a proxy header with a port out of range")
    return header


async def send_verdict(stream: trio.abc.SendStream, verdict: Verdict) -> None:
    await stream.send_all(bytes([verdict]))


async def receive_verdict(stream: trio.abc.ReceiveStream) -> Verdict:
    """Ingress's first byte. Raises ProtocolError for none or an unknown one."""
    byte = (await receive_exactly(stream, 1))[0]
    try:
        return Verdict(byte)
    except ValueError:
        raise ProtocolError(f"an unknown verdict {byte}") from None
