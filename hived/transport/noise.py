"""The Noise handshake of libp2p (libp2p noise specification), by the ``noiseprotocol`` library.

Three messages, XX: the responder's and then the initiator's carries the proof that its identity key
vouches for its Noise key. What comes out are the two keys, for ``records``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

import trio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.pb import crypto_pb2
from libp2p.crypto.rsa import RSAPublicKey
from libp2p.crypto.serialization import deserialize_public_key
from libp2p.peer.id import ID
from libp2p.security.noise.pb import noise_pb2
from nacl.signing import VerifyKey
from noise.backends.default.backend import DefaultNoiseBackend
from noise.backends.default.hashes import SHA256Hash
from noise.backends.default.keypairs import KeyPair25519
from noise.connection import NoiseConnection

from .multistream import HandshakeError
from .records import Opener, Sealer
from .suites import Suite

_SIGNED_PREFIX = b"noise-libp2p-static-key:"
# A payload holds a public key, a signature and extensions; RSA's take some hundred bytes.
MAX_MESSAGE = 4096
# The dialer's first message, a public key; the listener's is longer.
_FIRST_BYTES = 32
# The protobuf of an Ed25519 key, but for the key itself.
_ED25519 = b"\x08\x01\x12\x20"
# Real exponents are 65537; a long one takes 20 ms to check.
_MAX_RSA_EXPONENT = 2**32
_SHA2_256 = b"\x12\x20"


class WrongPeerError(HandshakeError):
    """Somebody else answers than the peer that was dialled."""


@dataclass(frozen=True)
class Keys:
    """The outcome: one direction each, who the other side is, and what identifies this very handshake."""

    sealer: Sealer
    opener: Opener
    peer_id: str
    handshake_hash: bytes


class _Sha256(SHA256Hash):  # type: ignore[misc]
    """The library's own takes seven times as long for some dozen bytes."""

    def hash(self, data: bytes) -> bytes:
        return hashlib.sha256(data).digest()


class _Backend(DefaultNoiseBackend):  # type: ignore[misc]
    """The library's primitives, with the standard library's hashes."""

    def __init__(self) -> None:
        super().__init__()
        self.hashes = {"SHA256": _Sha256}
        self.hmac = _hmac


def _hmac(key: bytes, data: bytes, algorithm: Callable[[], SHA256]) -> bytes:
    return hmac.digest(key, data, "sha256")


_BACKEND = _Backend()


class Noise:
    """This node's side of handshakes. The Noise key is made once; the identity vouches for it once."""

    def __init__(self, identity: KeyPair) -> None:
        self._static = _BACKEND.diffie_hellmans["25519"]().generate_keypair()
        self._payload = noise_pb2.NoiseHandshakePayload(
            identity_key=identity.public_key.serialize(),
            identity_sig=identity.private_key.sign(_SIGNED_PREFIX + self._static.public_bytes),
        ).SerializeToString()

    async def initiate(self, pipe: trio.abc.Stream, suite: Suite, expected: str) -> Keys:
        """As the dialer of the peer ``expected``. Raises HandshakeError, WrongPeerError."""
        state = begin(suite, self._static, initiator=True)
        await _send(pipe, _step(state.write_message, b""))
        answer = await _receive(pipe)
        if len(answer) == _FIRST_BYTES:
            # Their SYNs crossed (RFC 9293, 3.5), and neither has answered.
            raise HandshakeError("both nodes dialled in the same instant; the next try will do")
        payload = _step(state.read_message, answer)
        peer_id = authenticate(payload, state.noise_protocol.handshake_state.rs.public_bytes)
        if peer_id != expected:
            raise WrongPeerError("another node answers there")
        await _send(pipe, _step(state.write_message, self._payload))
        return finish(state, suite, peer_id)

    async def respond(self, pipe: trio.abc.Stream, suite: Suite) -> Keys:
        """As the listener. Raises HandshakeError."""
        state = begin(suite, self._static, initiator=False)
        _step(state.read_message, await _receive(pipe))
        await _send(pipe, _step(state.write_message, self._payload))
        # Gone from the library's state once the last message was read.
        handshake = state.noise_protocol.handshake_state
        payload = _step(state.read_message, await _receive(pipe))
        return finish(state, suite, authenticate(payload, handshake.rs.public_bytes))


def begin(suite: Suite, static: KeyPair25519, *, initiator: bool) -> NoiseConnection:
    """The library's state before the first message; ``static`` is this side's Noise key."""
    state = NoiseConnection.from_name(suite.noise_name.encode(), _BACKEND)
    if initiator:
        state.set_as_initiator()
    else:
        state.set_as_responder()
    # Not its set_keypair_..., which would compute the public key anew.
    state.noise_protocol.keypairs["s"] = static
    state.start_handshake()
    return state


def finish(state: NoiseConnection, suite: Suite, peer_id: str) -> Keys:
    """The keys of a library's state behind the last message."""
    protocol = state.noise_protocol
    out, back = protocol.cipher_state_encrypt, protocol.cipher_state_decrypt
    return Keys(
        Sealer(suite, bytes(out.k), out.n),
        Opener(suite, bytes(back.k), back.n),
        peer_id,
        bytes(state.get_handshake_hash()),
    )


def _step(step: Callable[[bytes], bytearray], data: bytes) -> bytes:
    """One step of the library. Raises HandshakeError: what a peer has sent makes a later step fail, too."""
    try:
        return bytes(step(data))
    except InvalidTag:
        raise HandshakeError("a handshake message that was not made for us") from None
    except Exception as error:
        # The library checks by failing: IndexError, ValueError and others.
        raise HandshakeError(f"a handshake message that makes no sense ({type(error).__name__})") from error


def authenticate(payload: bytes, static: bytes) -> str:
    """The peer ID whose key has signed the Noise key ``static``. Raises HandshakeError."""
    try:
        message = noise_pb2.NoiseHandshakePayload.FromString(payload)
        return _proved(message.identity_key, _SIGNED_PREFIX + static, message.identity_sig)
    except HandshakeError:
        raise
    except Exception as error:
        # The parsers of a hostile key or signature may raise nearly anything.
        raise HandshakeError(f"no proof of an identity ({type(error).__name__})") from error


def _proved(key: bytes, signed: bytes, signature: bytes) -> str:
    if len(key) == len(_ED25519) + 32 and key.startswith(_ED25519):
        VerifyKey(key[len(_ED25519) :]).verify(signed, signature)
        return str(ID(bytes([0, len(key)]) + key))
    kind = crypto_pb2.PublicKey.FromString(key)
    if kind.key_type == crypto_pb2.ECDSA:
        # Which py-libp2p does not know.
        ecdsa = load_der_public_key(kind.data)
        if not isinstance(ecdsa, EllipticCurvePublicKey):
            raise HandshakeError("an identity of an unknown kind")
        ecdsa.verify(signature, signed, ECDSA(SHA256()))
        # One key has one ID, however it was written.
        data = ecdsa.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        canonical = crypto_pb2.PublicKey(key_type=kind.key_type, data=data).SerializeToString(
            deterministic=True
        )
        return str(ID(_SHA2_256 + hashlib.sha256(canonical).digest()))
    other = deserialize_public_key(key)
    if isinstance(other, RSAPublicKey) and other.impl.e > _MAX_RSA_EXPONENT:
        raise HandshakeError("an RSA identity with a huge exponent")
    if not other.verify(signed, signature):
        raise HandshakeError("a wrong proof of an identity")
    return str(ID.from_pubkey(other))


async def _send(pipe: trio.abc.Stream, message: bytes) -> None:
    await pipe.send_all(len(message).to_bytes(2, "big") + message)


async def _receive(pipe: trio.abc.Stream) -> bytes:
    length = int.from_bytes(await receive_exactly(pipe, 2), "big")
    if length > MAX_MESSAGE:
        raise HandshakeError(f"a handshake message of {length} bytes")
    return await receive_exactly(pipe, length)


async def receive_exactly(pipe: trio.abc.Stream, count: int) -> bytes:
    """``count`` bytes and not one more. Raises HandshakeError when the pipe ends before."""
    data = b""
    while len(data) < count:
        part = await pipe.receive_some(count - len(data))
        if not part:
            raise HandshakeError("the connection ended in the handshake")
        data += part
    return data
