"""Multistream-select 1.0: agreeing on the protocol of a connection or a stream.

A message is its length as a varint, a text, and a newline. The dialer proposes, the listener echoes or
says ``na``. Both may send before they have heard: here the dialer sends its first proposal at once.
Nothing behind the last message is read: that belongs to the protocol.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import trio

HEADER = "/multistream/1.0.0"
NOT_AVAILABLE = "na"
MAX_LINE = 1024
# Nobody has so many versions of a protocol; who goes on asking wants something else.
MAX_PROPOSALS = 64


class HandshakeError(Exception):
    """The other side does not speak the protocol, or is not who it should be; the text is for people."""


class NotSpokenError(HandshakeError):
    """The other side answered in order that it speaks none of the protocols."""


class Pipe(Protocol):
    """Bytes both ways; reads give at most what is asked for."""

    async def send_all(self, data: bytes, /) -> None: ...

    async def receive_some(self, max_bytes: int, /) -> bytes | bytearray: ...


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def line(text: str) -> bytes:
    """One message."""
    body = text.encode() + b"\n"
    return _varint(len(body)) + body


_HEADER_LINE = line(HEADER)


def optimistic(protocol: str) -> bytes:
    """What a dialer sends that takes it for granted: its data may follow at once."""
    return _HEADER_LINE + line(protocol)


def answer(protocol: str) -> bytes:
    """What it gets for that where the listener agrees."""
    return _HEADER_LINE + line(protocol)


class Decoder:
    """Bytes in, texts out, however the bytes are cut. Raises HandshakeError for what is no message."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes | bytearray) -> None:
        """Take bytes; ``text`` gives what they complete."""
        self._held += data

    def text(self) -> str | None:
        """The next text, or None while it is not whole."""
        end = self._end()
        if end is None or len(self._held) < sum(end):
            return None
        start, length = end
        body = bytes(self._held[start : start + length])
        del self._held[: start + length]
        if not body.endswith(b"\n"):
            raise HandshakeError("a protocol line without an end")
        return body[:-1].decode("utf-8", "replace")

    def missing(self, shortest: int) -> int:
        """How many bytes may be read where the conversation may end with ``shortest`` more bytes.

        Once the length of a message is known, no more than the rest of it.
        """
        end = self._end()
        return max(1, (shortest if end is None else sum(end)) - len(self._held))

    @property
    def empty(self) -> bool:
        """Nothing is held behind the last text."""
        return not self._held

    def _end(self) -> tuple[int, int] | None:
        """Bytes of the next message's length, and the length; None while that is not whole."""
        length = 0
        for at, byte in enumerate(self._held):
            length |= (byte & 0x7F) << 7 * at
            if length > MAX_LINE or at > 1:
                raise HandshakeError("a protocol line that is too long")
            if not byte & 0x80:
                if not length:
                    raise HandshakeError("an empty protocol line")
                return at + 1, length
        return None


async def select(pipe: Pipe, *protocols: str) -> str:
    """Ask for the first of some protocols that the other side speaks; which one that is.

    Raises NotSpokenError when it speaks none, HandshakeError when the conversation fails.
    """
    what = f"{' or '.join(protocols)} was not agreed"
    decoder = Decoder()
    try:
        await pipe.send_all(optimistic(protocols[0]))
        await _expect_header(pipe, decoder, line(protocols[0]))
        for number, protocol in enumerate(protocols):
            proposal = line(protocol)
            if number:
                if not decoder.empty:
                    raise HandshakeError("an answer to nothing")
                await pipe.send_all(proposal)
            # It is this or ``na``; after that the other side is silent until the next proposal.
            said = await _read(pipe, decoder, len(proposal))
            if said == protocol:
                return protocol
            if said != NOT_AVAILABLE:
                raise HandshakeError(f"the answer was {said[:64]!r}")
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise HandshakeError(f"{what}: the connection ended") from error
    except HandshakeError as error:
        raise HandshakeError(f"{what}: {error}") from error
    raise NotSpokenError(f"{' or '.join(protocols)} is not spoken there")


async def negotiate(pipe: Pipe, protocols: Collection[str]) -> str:
    """Answer the other side with one of ``protocols``; which one it took. Raises HandshakeError."""
    shortest = min((line(protocol) for protocol in protocols), key=len, default=b"")
    decoder = Decoder()
    greeting = _HEADER_LINE
    try:
        await _expect_header(pipe, decoder, shortest)
        for _ in range(MAX_PROPOSALS):
            wanted = decoder.text()
            if wanted is None:
                # A dialer may wait for the greeting before it proposes.
                if greeting:
                    await pipe.send_all(greeting)
                    greeting = b""
                wanted = await _read(pipe, decoder, len(shortest))
            taken = wanted in protocols
            await pipe.send_all(greeting + line(wanted if taken else NOT_AVAILABLE))
            greeting = b""
            if taken:
                return wanted
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise HandshakeError("no protocol was agreed: the connection ended") from error
    except HandshakeError as error:
        raise HandshakeError(f"no protocol was agreed: {error}") from error
    raise HandshakeError("no protocol was agreed")


async def _expect_header(pipe: Pipe, decoder: Decoder, then: bytes) -> None:
    said = await _read(pipe, decoder, len(_HEADER_LINE) + len(then))
    if said != HEADER:
        raise HandshakeError(f"{said[:64]!r} in place of {HEADER}")


async def _read(pipe: Pipe, decoder: Decoder, shortest: int) -> str:
    while (text := decoder.text()) is None:
        data = await pipe.receive_some(decoder.missing(shortest))
        if not data:
            raise HandshakeError("the connection ended")
        decoder.feed(data)
    return text
