"""An authenticated connection to a peer, and what has been proved on it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from ..transport.multistream import HandshakeError, select
from ..transport.muxer import Muxer
from ..transport.muxstream import MuxedStream
from .wire import ProtocolError

NEGOTIATE_SECONDS = 10.0
# What a stream may end with that is the other side's doing, not a defect of ours.
STREAM_ERRORS = (
    ProtocolError,
    HandshakeError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.EndOfChannel,
    trio.TooSlowError,
)


class DialError(Exception):
    """One address could not be dialled; the text says why, for people."""


@dataclass(eq=False)
class Connection:
    """An authenticated connection to ``peer_id``.

    ``memberships`` are the networks that the peer has proved on this connection, ``usable``
    those where both sides know so, and streams may be opened; ``served``: there was one. ``relay``: the peer
    ID of the node whose circuit it runs over; ``from_listener``: we dialled it from a listener's port;
    ``host``: the IP address that it leads to, "" for none; ``punched``: both sides dialled at a time that
    they had agreed on; ``handlers``: of protocols that are offered on this connection besides.
    """

    peer_id: str
    muxer: Muxer
    initiator: bool
    address: str
    handshake_hash: bytes
    opened: float = field(default_factory=time.time)
    begun: float = field(default_factory=time.monotonic)
    memberships: set[str] = field(default_factory=set)
    usable: set[str] = field(default_factory=set)
    served: bool = False
    proved: dict[str, bytes] = field(default_factory=dict, repr=False)
    streams: int = 0
    pings: int = 0
    relay: str | None = None
    host: str = ""
    from_listener: bool = False
    punched: bool = False
    handlers: dict[str, Callable[[MuxedStream, Connection], Awaitable[None]]] = field(
        default_factory=dict, repr=False
    )

    @property
    def is_open(self) -> bool:
        return not self.muxer.closed.is_set()

    @property
    def heard(self) -> float:
        """When bytes last came, epoch seconds."""
        return time.time() - self.muxer.age

    @property
    def stood(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self.begun

    @property
    def takes_streams(self) -> bool:
        """Open, and the peer is not going away."""
        return self.is_open and not self.muxer.draining

    async def open_stream(self, protocol: str) -> MuxedStream:
        """A stream that speaks ``protocol``. Raises one of STREAM_ERRORS."""
        return (await self.open_any(protocol))[0]

    async def open_any(self, *protocols: str) -> tuple[MuxedStream, str]:
        """A stream that speaks the first of ``protocols`` that the peer does too, and which that is.

        Raises one of STREAM_ERRORS: NotSpokenError when it speaks none.
        """
        with trio.fail_after(NEGOTIATE_SECONDS):
            stream = await self.muxer.open()
            try:
                return stream, await select(stream, *protocols)
            except BaseException:
                stream.reset()
                raise
