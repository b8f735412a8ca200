"""From a byte pipe to a secured one: multistream-select, Noise, and the muxer agreed inside."""

from __future__ import annotations

from dataclasses import dataclass

import trio
from libp2p.crypto.keys import KeyPair

from .multistream import HandshakeError, negotiate, select
from .noise import Noise, receive_exactly
from .records import BadRecordError, Opener, Sealer
from .suites import Suite, offered

YAMUX = "/yamux/1.0.0"
HANDSHAKE_SECONDS = 10.0


@dataclass(frozen=True)
class Secured:
    """A connection to an authenticated peer; ``handshake_hash`` identifies this very connection.

    ``plain``: opened bytes that came behind the negotiation and belong to the muxer.
    """

    sealer: Sealer
    opener: Opener
    suite: Suite
    peer_id: str
    handshake_hash: bytes
    plain: bytes


class SealedPipe:
    """Both directions of a secured connection, message by message: for what precedes the data plane.

    Never reads a byte more of the pipe than a message has. Raises HandshakeError for a bad one.
    """

    def __init__(self, pipe: trio.abc.Stream, sealer: Sealer, opener: Opener) -> None:
        self.pipe = pipe
        self.plain = b""
        self._sealer = sealer
        self._opener = opener

    async def send_all(self, data: bytes) -> None:
        out = memoryview(bytearray(self._sealer.overhead + len(data)))
        await self.pipe.send_all(bytes(out[: self._sealer.seal(memoryview(data), out)]))

    async def receive_some(self, max_bytes: int) -> bytes:
        opener = self._opener
        while not self.plain:
            try:
                length = opener.head(await receive_exactly(self.pipe, opener.prefix))
                sealed = await receive_exactly(self.pipe, length)
                plain = memoryview(bytearray(length))
                self.plain = bytes(plain[: opener.open(memoryview(sealed), plain)])
            except BadRecordError as error:
                raise HandshakeError(str(error)) from error
        data, self.plain = self.plain[:max_bytes], self.plain[max_bytes:]
        return data


class Upgrader:
    """Secures pipes with this node's identity and agrees on the stream muxer."""

    def __init__(self, key_pair: KeyPair, suites: tuple[Suite, ...] | None = None) -> None:
        self._noise = Noise(key_pair)
        self._suites = {suite.protocol: suite for suite in (suites or offered())}

    async def upgrade(self, pipe: trio.abc.Stream, *, initiator: bool, expected: str | None) -> Secured:
        """Secure ``pipe``. ``expected`` is the peer ID that the other side must prove (dialer).

        Raises HandshakeError, also after 10 s; the pipe is then the caller's to close.
        """
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                return await (self._dial(pipe, expected) if initiator else self._answer(pipe))
        except trio.TooSlowError:
            raise HandshakeError(f"no handshake within {HANDSHAKE_SECONDS:.0f} s") from None
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise HandshakeError("the connection ended in the handshake") from error

    async def _dial(self, pipe: trio.abc.Stream, expected: str | None) -> Secured:
        if expected is None:
            raise HandshakeError("a dialer must know whom it dials")
        suite = self._suites[await select(pipe, *self._suites)]
        keys = await self._noise.initiate(pipe, suite, expected)
        sealed = SealedPipe(pipe, keys.sealer, keys.opener)
        await select(sealed, YAMUX)
        return Secured(keys.sealer, keys.opener, suite, keys.peer_id, keys.handshake_hash, sealed.plain)

    async def _answer(self, pipe: trio.abc.Stream) -> Secured:
        suite = self._suites[await negotiate(pipe, self._suites)]
        keys = await self._noise.respond(pipe, suite)
        sealed = SealedPipe(pipe, keys.sealer, keys.opener)
        await negotiate(sealed, [YAMUX])
        return Secured(keys.sealer, keys.opener, suite, keys.peer_id, keys.handshake_hash, sealed.plain)
