"""The handshake: by the published vectors, with whoever proves to be who they say, and nobody else."""

from __future__ import annotations

import contextlib
import json
import struct
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import trio
from Crypto.PublicKey import RSA
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.crypto import ed25519, rsa, secp256k1
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.pb import crypto_pb2
from libp2p.peer.id import ID
from libp2p.security.noise.pb import noise_pb2
from noise.backends.default.keypairs import KeyPair25519
from noise.connection import NoiseConnection
from trio.testing import MockClock, memory_stream_pair, trio_test

from hived.transport.multistream import HandshakeError
from hived.transport.noise import (
    MAX_MESSAGE,
    Keys,
    Noise,
    WrongPeerError,
    authenticate,
    begin,
    finish,
    receive_exactly,
)
from hived.transport.records import Opener, Sealer
from hived.transport.suites import AESGCM, AESGCM_LONG, NOISE, Suite
from tests.unit.transport.handshakes import ALICE, BOB, between, flipped, same

VECTORS = json.loads((Path(__file__).parents[2] / "fixtures" / "noise" / "cacophony_xx.json").read_text())[
    "vectors"
]
SUITES = [NOISE, AESGCM, AESGCM_LONG]
suites = pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.protocol)
STATIC = bytes(range(32))
SIGNED = b"noise-libp2p-static-key:" + STATIC
alice, bob = Noise(ALICE.key_pair), Noise(BOB.key_pair)


async def handshake(suite: Suite, there: Any = same, back: Any = same) -> tuple[object, object]:
    return await between(
        lambda pipe: alice.initiate(pipe, suite, BOB.peer_id),
        lambda pipe: bob.respond(pipe, suite),
        there,
        back,
    )


def pass_on(sealer: Sealer, opener: Opener, plain: bytes) -> bytes:
    """A message from one end to the other; returns the bytes on the way, without the prefix."""
    out = memoryview(bytearray(sealer.overhead + len(plain)))
    sealer.seal(memoryview(plain), out)
    got = memoryview(bytearray(len(plain)))
    assert opener.open(out[sealer.prefix :], got) == len(plain)
    assert got == plain
    return bytes(out[sealer.prefix :])


@suites
@trio_test
async def test_two_dialers_say_what_they_are(suite: Suite) -> None:
    """TCP connects them where each dials the other's listener from its own at once."""
    one, other = await between(
        lambda pipe: alice.initiate(pipe, suite, BOB.peer_id),
        lambda pipe: bob.initiate(pipe, suite, ALICE.peer_id),
        same,
        same,
    )
    for error in (one, other):
        assert isinstance(error, HandshakeError)
        assert "same instant" in str(error)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["protocol_name"])
@pytest.mark.filterwarnings("ignore:One of ephemeral keypairs")
@pytest.mark.parametrize("long", [False, True])
def test_published_vectors(monkeypatch: pytest.MonkeyPatch, vector: dict[str, Any], long: bool) -> None:
    """Keys of the vector, our way to begin and finish, and our records: every byte as published."""
    suite = NOISE if "ChaCha" in vector["protocol_name"] else AESGCM_LONG if long else AESGCM
    assert suite.noise_name == vector["protocol_name"]
    # The vectors have a prologue and fixed ephemeral keys, which libp2p has not.
    start = NoiseConnection.start_handshake

    def start_with_fixed_keys(state: NoiseConnection) -> None:
        protocol = state.noise_protocol
        side = "init" if protocol.initiator else "resp"
        protocol.prologue = bytes.fromhex(vector[f"{side}_prologue"])
        protocol.keypairs["e"] = KeyPair25519.from_private_bytes(bytes.fromhex(vector[f"{side}_ephemeral"]))
        start(state)

    monkeypatch.setattr(NoiseConnection, "start_handshake", start_with_fixed_keys)
    states = [
        begin(
            suite,
            KeyPair25519.from_private_bytes(bytes.fromhex(vector[f"{side}_static"])),
            initiator=initiator,
        )
        for side, initiator in (("init", True), ("resp", False))
    ]
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    for number, (payload, ciphertext) in enumerate(messages[:3]):
        writer, reader = states[number % 2], states[1 - number % 2]
        assert bytes(writer.write_message(payload)) == ciphertext
        assert bytes(reader.read_message(ciphertext)) == payload
    ends = [finish(state, suite, "") for state in states]
    assert {end.handshake_hash.hex() for end in ends} == {vector["handshake_hash"]}
    for number, (payload, ciphertext) in enumerate(messages[3:], 3):
        assert pass_on(ends[number % 2].sealer, ends[1 - number % 2].opener, payload) == ciphertext


@suites
@trio_test
async def test_both_know_who_the_other_is(suite: Suite) -> None:
    ours, theirs = await handshake(suite)
    assert isinstance(ours, Keys)
    assert isinstance(theirs, Keys)
    assert (ours.peer_id, theirs.peer_id) == (BOB.peer_id, ALICE.peer_id)
    assert ours.handshake_hash == theirs.handshake_hash
    for _ in range(3):
        pass_on(ours.sealer, theirs.opener, b"there")
        pass_on(theirs.sealer, ours.opener, b"back")
    again, _ = await handshake(suite)
    assert isinstance(again, Keys)
    assert again.handshake_hash != ours.handshake_hash


@trio_test
async def test_a_record_of_the_other_direction_does_not_open() -> None:
    ours, theirs = await handshake(AESGCM)
    assert isinstance(ours, Keys)
    assert isinstance(theirs, Keys)
    record = pass_on(ours.sealer, theirs.opener, b"there")
    with pytest.raises(Exception, match="tag is wrong"):
        ours.opener.open(memoryview(record), memoryview(bytearray(5)))


@trio_test
async def test_the_two_suites_of_one_cipher_share_nothing_but_the_handshake() -> None:
    """A listener that took another suite than the dialer meant fails at once, or at the first record."""
    ours, theirs = await between(
        lambda pipe: alice.initiate(pipe, NOISE, BOB.peer_id), lambda pipe: bob.respond(pipe, AESGCM)
    )
    assert isinstance(ours, HandshakeError)
    assert isinstance(theirs, HandshakeError)


@suites
@trio_test
async def test_another_peer_than_expected(suite: Suite) -> None:
    ours, theirs = await between(
        lambda pipe: alice.initiate(pipe, suite, ALICE.peer_id), lambda pipe: bob.respond(pipe, suite)
    )
    assert isinstance(ours, WrongPeerError)
    assert str(ours) == "another node answers there"
    assert isinstance(theirs, HandshakeError)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([NOISE, AESGCM]), st.booleans(), st.data())
def test_a_bit_turned_over_anywhere(suite: Suite, there: bool, data: st.DataObject) -> None:
    """In any of the three messages; no two ends with the same keys come of it."""
    length = 34 + 2 + 32 + 16 + PAYLOAD + 16 if there else 2 + 32 + 32 + 16 + PAYLOAD + 16
    alter = flipped(data.draw(st.integers(0, length * 8 - 1)))

    async def main() -> None:
        with trio.move_on_after(10):
            ours, theirs = await handshake(suite, *((alter, same) if there else (same, alter)))
            assert isinstance(theirs, HandshakeError)
            # The dialer is done before its last message arrives.
            assert isinstance(ours, HandshakeError) or there

    trio.run(main, clock=MockClock(autojump_threshold=0))


PAYLOAD = 2 + 36 + 2 + 64


@trio_test
async def test_the_lengths_above_are_right() -> None:
    lengths = [0, 0]

    def count(side: int, data: bytes, before: int) -> bytes:
        lengths[side] = before + len(data)
        return data

    await handshake(NOISE, partial(count, 0), partial(count, 1))
    assert lengths == [34 + 2 + 32 + 16 + PAYLOAD + 16, 2 + 32 + 32 + 16 + PAYLOAD + 16]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"short",
        bytes(31),
        # Points of low order (RFC 7748, section 6.1): every shared secret is zero.
        bytes(32),
        b"\x01" + bytes(31),
        b"\xec" + b"\xff" * 30 + b"\x7f",
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    ],
)
@trio_test
async def test_a_first_message_that_leads_nowhere(message: bytes) -> None:
    """However late the library notices, it is one kind of error."""
    client, server = memory_stream_pair()
    await client.send_all(struct.pack(">H", len(message)) + message)
    await client.send_eof()
    with pytest.raises(HandshakeError):
        await bob.respond(server, NOISE)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_a_handshake_error(data: bytes, framed: bool) -> None:
    async def main() -> None:
        for respond in (True, False):
            client, server = memory_stream_pair()
            await client.send_all((struct.pack(">H", len(data)) if framed else b"") + data)
            await client.send_eof()
            with pytest.raises(HandshakeError):
                if respond:
                    await bob.respond(server, AESGCM)
                else:
                    await alice.initiate(server, AESGCM, BOB.peer_id)

    trio.run(main, clock=MockClock(autojump_threshold=0))


@trio_test
async def test_a_message_that_nobody_needs() -> None:
    client, server = memory_stream_pair()
    await client.send_all(struct.pack(">H", MAX_MESSAGE + 1))
    with pytest.raises(HandshakeError, match=str(MAX_MESSAGE + 1)):
        await bob.respond(server, NOISE)


@trio_test
async def test_exactly_so_many_bytes() -> None:
    client, server = memory_stream_pair()
    await client.send_all(b"12345")
    assert await receive_exactly(server, 3) == b"123"
    assert await receive_exactly(server, 0) == b""
    await client.send_eof()
    with pytest.raises(HandshakeError, match="ended"):
        await receive_exactly(server, 3)


@trio_test
async def test_exactly_so_many_bytes_of_several_pieces() -> None:
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def later() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await client.send_all(b"345")

        await client.send_all(b"12")
        nursery.start_soon(later)
        assert await receive_exactly(server, 3) == b"123"
    assert await receive_exactly(server, 2) == b"45"


# Who proves what


def payload(key: bytes, signature: bytes, **more: Any) -> bytes:
    return noise_pb2.NoiseHandshakePayload(
        identity_key=key, identity_sig=signature, **more
    ).SerializeToString()


PAIRS: dict[str, KeyPair] = {
    "ed25519": ed25519.create_new_key_pair(bytes(32)),
    "rsa": rsa.create_new_key_pair(2048),
    "rsa-4096": rsa.create_new_key_pair(4096),
    "secp256k1": secp256k1.create_new_key_pair(),
}
pairs = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())


@pairs
def test_identities_of_all_kinds(pair: KeyPair) -> None:
    key, signature = pair.public_key.serialize(), pair.private_key.sign(SIGNED)
    assert authenticate(payload(key, signature), STATIC) == str(ID.from_pubkey(pair.public_key))
    for wrong in (pair.private_key.sign(b"other" + SIGNED), signature[:-1], signature + b"!", b"", bytes(64)):
        with pytest.raises(HandshakeError):
            authenticate(payload(key, wrong), STATIC)
    with pytest.raises(HandshakeError):
        authenticate(payload(key, signature), STATIC[::-1])
    with pytest.raises(HandshakeError):
        authenticate(
            payload(
                PAIRS["ed25519" if pair is not PAIRS["ed25519"] else "rsa"].public_key.serialize(), signature
            ),
            STATIC,
        )


@pairs
@trio_test
async def test_shaking_hands_with_them(pair: KeyPair) -> None:
    other = Noise(pair)
    peer_id = str(ID.from_pubkey(pair.public_key))
    ours, theirs = await between(
        lambda pipe: alice.initiate(pipe, NOISE, peer_id), lambda pipe: other.respond(pipe, NOISE)
    )
    assert isinstance(ours, Keys)
    assert isinstance(theirs, Keys)
    assert (ours.peer_id, theirs.peer_id) == (peer_id, ALICE.peer_id)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_ecdsa_identities(curve: ec.EllipticCurve) -> None:
    """Peer ID specification: PKIX, ASN.1 DER, SHA-256; py-libp2p has none of it."""
    private = ec.generate_private_key(curve)
    data = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key = crypto_pb2.PublicKey(key_type=crypto_pb2.ECDSA, data=data).SerializeToString()
    signature = private.sign(SIGNED, ec.ECDSA(SHA256()))
    assert authenticate(payload(key, signature), STATIC) == str(ID(b"\x12\x20" + sha256(key).digest()))
    with pytest.raises(HandshakeError):
        authenticate(payload(key, private.sign(SIGNED + b"!", ec.ECDSA(SHA256()))), STATIC)


def test_an_ecdsa_key_has_one_id_however_it_is_written() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key()
    data = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    long, short = (
        public.public_bytes(Encoding.X962, point)
        for point in (PublicFormat.UncompressedPoint, PublicFormat.CompressedPoint)
    )
    # The lengths of both sequences and of the bit string become 32 less.
    compressed = data.replace(long, short)
    compressed = bytes(
        [*compressed[:1], compressed[1] - 32, *compressed[2:24], compressed[24] - 32, *compressed[25:]]
    )
    signature = private.sign(SIGNED, ec.ECDSA(SHA256()))
    plain = crypto_pb2.PublicKey(key_type=crypto_pb2.ECDSA, data=data).SerializeToString()
    squeezed = crypto_pb2.PublicKey(key_type=crypto_pb2.ECDSA, data=compressed).SerializeToString()
    with_more = plain + b"\x1a\x01x"
    ids = {authenticate(payload(key, signature), STATIC) for key in (plain, squeezed, with_more)}
    assert len(ids) == 1


def test_an_ed25519_key_in_the_clothes_of_ecdsa() -> None:
    private = Ed25519PrivateKey.generate()
    data = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key = crypto_pb2.PublicKey(key_type=crypto_pb2.ECDSA, data=data).SerializeToString()
    with pytest.raises(HandshakeError, match="unknown kind"):
        authenticate(payload(key, private.sign(SIGNED)), STATIC)


def test_a_key_that_takes_long_to_check_is_not_checked() -> None:
    key = RSA.construct((PAIRS["rsa"].public_key.impl.n, 2**2000 + 1), consistency_check=False)  # type: ignore[attr-defined]
    with pytest.raises(HandshakeError, match="huge exponent"):
        authenticate(payload(rsa.RSAPublicKey(key).serialize(), bytes(256)), STATIC)


def test_extensions_are_passed_over() -> None:
    pair = PAIRS["ed25519"]
    extensions = noise_pb2.NoiseExtensions(
        webtransport_certhashes=[b"x" * 34] * 20, stream_muxers=["/yamux/1.0.0"]
    )
    good = payload(pair.public_key.serialize(), pair.private_key.sign(SIGNED), extensions=extensions)
    # A field that no version of the message has had.
    assert authenticate(good + b"\xfa\x01\x02hi", STATIC) == str(ID.from_pubkey(pair.public_key))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_payload_is_a_proof_or_an_error(data: st.DataObject) -> None:
    pair = PAIRS[data.draw(st.sampled_from(sorted(PAIRS)))]
    good = bytearray(payload(pair.public_key.serialize(), pair.private_key.sign(SIGNED)))
    how = data.draw(st.sampled_from(["bytes", "cut", "bits"]))
    if how == "bytes":
        bad = data.draw(st.binary(max_size=120))
    elif how == "cut":
        bad = bytes(good[: data.draw(st.integers(0, len(good) - 1))])
    else:
        good[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
        bad = bytes(good)
    with contextlib.suppress(HandshakeError):
        # Some bits mean nothing to protobuf, but whoever signed it is who it is.
        assert authenticate(bad, STATIC) == str(ID.from_pubkey(pair.public_key))
