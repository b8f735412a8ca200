"""Strangers for the join benchmark, as cheap to play as can be: they share the cores with what is measured.

A stranger is a new identity on a new TCP connection. It does the real handshakes (multistream, Noise XX,
yamux, /hive/join/1.0.0) and guesses a password. It sends ahead what it need not wait for, makes
its identity only when the other side is willing, and checks nothing that the other side says.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519
from libp2p.security.noise.messages import NoiseHandshakePayload, make_handshake_payload_sig
from noise.connection import Keypair, NoiseConnection

from hived.overlay.joinhandshake import JOIN, Binding, JoinHandshake
from hived.overlay.membership import Answer, Confirm, Hello
from hived.overlay.wire import LENGTH_BYTES, decode, encode
from hived.transport.frames import DATA, GO_AWAY, RST, SYN, Decoder, header
from hived.transport.multistream import HandshakeError
from hived.transport.records import Opener, Sealer
from hived.transport.secure import SealedPipe
from hived.transport.suites import NOISE as SUITE

MULTISTREAM = "/multistream/1.0.0"
NOISE = "/noise"
YAMUX = "/yamux/1.0.0"
STREAM = 1
GONE = (
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
    HandshakeError,
    OSError,
    EOFError,
)

# How far a stranger came: no handshake, cut off after it, told to wait, or told that its guess is wrong.
FARES = ("refused", "cut", "delayed", "guessed")


def lines(*texts: str) -> bytes:
    """multistream-select lines."""
    bodies = [text.encode() + b"\n" for text in texts]
    return b"".join(bytes([len(body)]) + body for body in bodies)


def wrong_share() -> bytes:
    """A SPAKE2 share of a password that nobody has; the same for all, for it costs 5 ms to make."""
    return JoinHandshake(os.urandom(32), Binding(b"n" * 32, "a", "b", b"h" * 32), opener=True).share


class Stranger:
    """One stranger on a connection that is open already; ``fare`` is how far it came."""

    def __init__(self, stream: trio.SocketStream, network: bytes, share: bytes) -> None:
        self.fare = "refused"
        self._stream = stream
        self._hello = encode(Hello(network=network, share=share))
        self._secured: SealedPipe | None = None
        self._plain = bytearray()
        self._joined = bytearray()
        self._frames = Decoder()

    async def call(self) -> None:
        """Shake hands, guess, and read the verdict. Raises one of GONE when the other side ends it before."""
        pipe = self._secured = await self._handshake()
        opening = lines(MULTISTREAM, JOIN) + self._hello
        await pipe.send_all(
            lines(MULTISTREAM, YAMUX) + header(DATA, SYN, STREAM, len(opening)) + opening,
        )
        while (at := len(lines(MULTISTREAM, YAMUX))) > len(self._plain):
            await self._read()
        early = bytes(self._plain[at:])
        self._feed(early)
        await self._skip(len(lines(MULTISTREAM, JOIN)))
        answer = decode(await self._message(), Answer)
        if answer.wait:
            self.fare = "delayed"
            return
        proof = encode(Confirm(proof=os.urandom(32), more=[os.urandom(32) for _ in answer.more]))
        await pipe.send_all(header(DATA, 0, STREAM, len(proof)) + proof)
        await self._message()
        self.fare = "guessed"

    async def _handshake(self) -> SealedPipe:
        state = NoiseConnection.from_name(SUITE.noise_name.encode())
        static = create_x25519()
        state.set_keypair_from_private_bytes(Keypair.STATIC, static.private_key.to_bytes())
        state.set_as_initiator()
        state.start_handshake()
        first = state.write_message(b"")
        await self._stream.send_all(lines(MULTISTREAM, NOISE) + len(first).to_bytes(2, "big") + bytes(first))
        await self._exactly(len(lines(MULTISTREAM, NOISE)))
        state.read_message(await self._exactly(int.from_bytes(await self._exactly(2), "big")))
        identity = create_new_key_pair(os.urandom(32))
        signature = make_handshake_payload_sig(identity.private_key, static.public_key)
        third = state.write_message(NoiseHandshakePayload(identity.public_key, signature).serialize())
        await self._stream.send_all(len(third).to_bytes(2, "big") + bytes(third))
        self.fare = "cut"
        out, back = state.noise_protocol.cipher_state_encrypt, state.noise_protocol.cipher_state_decrypt
        return SealedPipe(self._stream, Sealer(SUITE, bytes(out.k)), Opener(SUITE, bytes(back.k)))

    async def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = await self._stream.receive_some(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    # After the handshake: yamux, of which only one stream matters.

    async def _read(self) -> bytes:
        assert self._secured is not None
        part = await self._secured.receive_some(65536)
        if not part:
            raise EOFError
        self._plain += part
        return part

    def _feed(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            if frame.flags & RST or frame.kind == GO_AWAY:
                raise EOFError
            if frame.kind == DATA and frame.stream_id == STREAM:
                self._joined += frame.payload

    async def _skip(self, count: int) -> bytes:
        while len(self._joined) < count:
            self._feed(await self._read())
        data = bytes(self._joined[:count])
        del self._joined[:count]
        return data

    async def _message(self) -> bytes:
        return await self._skip(int.from_bytes(await self._skip(LENGTH_BYTES), "big"))


async def try_once(
    end: tuple[str, int], source: str, network: bytes, share: bytes, seconds: float = 5.0
) -> str:
    """One stranger from ``source``, over after ``seconds`` at most; how far it came, one of FARES."""
    sock = trio.socket.socket()
    # Closed with a reset: thousands of ports in TIME_WAIT would be the bench's own limit.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    fare = "refused"
    try:
        with contextlib.suppress(*GONE), trio.move_on_after(seconds):
            await sock.bind((source, 0))
            await sock.connect(end)
            stranger = Stranger(trio.SocketStream(sock), network, share)
            try:
                await stranger.call()
            finally:
                fare = stranger.fare
    finally:
        sock.close()
    return fare


def sources(kind: str) -> list[str]:
    """The addresses that a kind of flood comes from; ``members``: where members come from, too."""
    several = {
        "many": [f"127.1.7.{number}" for number in range(1, 201)],
        "one": ["127.1.8.8"],
        "members": ["127.0.0.1"],
    }
    return several[kind]


def counts(fares: Iterable[str]) -> dict[str, int]:
    """How many came how far."""
    found = list(fares)
    return {fare: found.count(fare) for fare in FARES}
