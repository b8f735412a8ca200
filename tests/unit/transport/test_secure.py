"""From a pipe to a secured one: who answers is who was meant, and whoever stays silent or lies is let go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.abc import IRawConnection
from libp2p.connection_types import ConnectionType
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.transport import Transport
from trio.testing import MockClock, memory_stream_pair, trio_test

from hived.overlay.identity import Identity
from hived.transport.multistream import HandshakeError, answer, line, optimistic, select
from hived.transport.noise import WrongPeerError
from hived.transport.secure import HANDSHAKE_SECONDS, YAMUX, SealedPipe, Secured, Upgrader
from hived.transport.suites import AESGCM, AESGCM_LONG, NOISE, Suite
from tests.unit.transport.handshakes import ALICE, BOB, Alter, between, flipped, same, sockets

ALL = (AESGCM_LONG, AESGCM, NOISE)


async def upgraded(
    ours: tuple[Suite, ...] = ALL,
    theirs: tuple[Suite, ...] = ALL,
    there: Alter = same,
    back: Alter = same,
    expected: str = BOB.peer_id,
) -> tuple[object, object]:
    """What both ends came to, Alice's first."""
    return await between(
        lambda pipe: Upgrader(ALICE.key_pair, ours).upgrade(pipe, initiator=True, expected=expected),
        lambda pipe: Upgrader(BOB.key_pair, theirs).upgrade(pipe, initiator=False, expected=None),
        there,
        back,
    )


def pass_on(sender: Secured, receiver: Secured, plain: bytes) -> None:
    """A message by the keys of both."""
    out = memoryview(bytearray(sender.sealer.overhead + len(plain)))
    size = sender.sealer.seal(memoryview(plain), out)
    got = memoryview(bytearray(len(plain)))
    assert receiver.opener.head(out) == size - receiver.opener.prefix
    receiver.opener.open(out[receiver.opener.prefix : size], got)
    assert got == plain


def both(ends: tuple[object, object]) -> tuple[Secured, Secured]:
    alice, bob = ends
    assert isinstance(alice, Secured)
    assert isinstance(bob, Secured)
    assert (alice.peer_id, bob.peer_id) == (BOB.peer_id, ALICE.peer_id)
    assert alice.handshake_hash == bob.handshake_hash
    assert alice.suite == bob.suite
    assert alice.plain == bob.plain == b""
    pass_on(alice, bob, b"there")
    pass_on(bob, alice, bytes(alice.suite.max_plain))
    return alice, bob


@pytest.mark.parametrize(
    ("ours", "theirs", "taken"),
    [
        (ALL, ALL, AESGCM_LONG),
        (ALL, (AESGCM, NOISE), AESGCM),
        ((AESGCM, NOISE), ALL, AESGCM),
        (ALL, (NOISE,), NOISE),
        ((NOISE,), ALL, NOISE),
    ],
)
@trio_test
async def test_the_best_that_both_have(
    ours: tuple[Suite, ...], theirs: tuple[Suite, ...], taken: Suite
) -> None:
    alice, _ = both(await upgraded(ours, theirs))
    assert alice.suite == taken


@trio_test
async def test_nothing_in_common() -> None:
    alice, bob = await upgraded((AESGCM,), (NOISE,))
    assert isinstance(alice, HandshakeError)
    assert isinstance(bob, HandshakeError)


async def over(client: trio.abc.Stream, server: trio.abc.Stream) -> tuple[Secured, Secured]:
    """Both ends where the handshake works out."""
    made: dict[bool, Secured] = {}

    async def upgrade(identity: Identity, initiator: bool, pipe: trio.abc.Stream) -> None:
        made[initiator] = await Upgrader(identity.key_pair, ALL).upgrade(
            pipe, initiator=initiator, expected=BOB.peer_id if initiator else None
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(upgrade, ALICE, True, client)
        nursery.start_soon(upgrade, BOB, False, server)
    return both((made[True], made[False]))


@trio_test
async def test_over_sockets_and_each_time_another() -> None:
    hashes = set()
    for _ in range(2):
        client, server = sockets()
        async with client, server:
            alice, _ = await over(client, server)
        hashes.add(alice.handshake_hash)
    assert len(hashes) == 2


@pytest.mark.parametrize("removed", [1, 2])
@trio_test
async def test_who_takes_the_best_out_of_the_offer_gains_the_next_one_only(removed: int) -> None:
    """A man in the middle may say ``na`` for the listener; both ends then know each other all the same."""
    client, left = memory_stream_pair()
    right, server = memory_stream_pair()
    header = line("/multistream/1.0.0")

    async def strip() -> None:
        await exactly(left, len(header))
        await left.send_all(header)
        for suite in ALL[:removed]:
            proposal = line(suite.protocol)
            assert await exactly(left, len(proposal)) == proposal
            await left.send_all(line("na"))
        await right.send_all(header)
        await exactly(right, len(header))
        async with trio.open_nursery() as pumps:
            pumps.start_soon(pump, left, right)
            pumps.start_soon(pump, right, left)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(strip)
        alice, _ = await over(client, server)
        nursery.cancel_scope.cancel()
    assert alice.suite == ALL[removed]


async def exactly(pipe: trio.abc.ReceiveStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await pipe.receive_some(count - len(data))
        assert part
        data += part
    return data


async def pump(source: trio.abc.ReceiveStream, target: trio.abc.SendStream) -> None:
    async for data in source:
        await target.send_all(data)


@trio_test
async def test_another_peer_than_expected() -> None:
    alice, bob = await upgraded(expected=ALICE.peer_id)
    assert isinstance(alice, WrongPeerError)
    assert isinstance(bob, HandshakeError)


@trio_test
async def test_a_dialer_must_know_whom_it_dials() -> None:
    client, server = memory_stream_pair()
    with pytest.raises(HandshakeError, match="must know"):
        await Upgrader(ALICE.key_pair).upgrade(client, initiator=True, expected=None)
    await client.aclose()
    with pytest.raises(HandshakeError, match="ended"):
        await Upgrader(BOB.key_pair).upgrade(server, initiator=False, expected=None)


class Breaking(trio.abc.Stream):
    """A pipe that fails in the midst of its ``sends``-th message."""

    def __init__(self, pipe: trio.abc.Stream, sends: int, error: Exception) -> None:
        self._pipe = pipe
        self._left = sends
        self._error = error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._left -= 1
        if not self._left:
            raise self._error
        await self._pipe.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._pipe.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._pipe.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._pipe.aclose()


@pytest.mark.parametrize(
    "error", [trio.BrokenResourceError(), trio.ClosedResourceError(), ConnectionResetError()]
)
@pytest.mark.parametrize("initiator", [True, False])
@pytest.mark.parametrize("sends", [2, 3])
@trio_test
async def test_a_pipe_that_breaks_behind_the_choice_of_the_suite(
    error: Exception, initiator: bool, sends: int
) -> None:
    """In the handshake, or in what is agreed inside."""
    alice, bob = await between(
        lambda pipe: Upgrader(ALICE.key_pair, ALL).upgrade(
            Breaking(pipe, sends if initiator else 99, error), initiator=True, expected=BOB.peer_id
        ),
        lambda pipe: Upgrader(BOB.key_pair, ALL).upgrade(
            Breaking(pipe, 99 if initiator else sends, error), initiator=False, expected=None
        ),
    )
    broken, other = (alice, bob) if initiator else (bob, alice)
    assert isinstance(broken, HandshakeError)
    assert "ended" in str(broken)
    assert isinstance(other, HandshakeError)


@pytest.mark.parametrize("initiator", [True, False])
@pytest.mark.parametrize("says", [b"", line("/multistream/1.0.0"), answer(AESGCM_LONG.protocol)])
def test_a_silent_peer_is_let_go(initiator: bool, says: bytes) -> None:
    async def main() -> None:
        pipe, other = memory_stream_pair()
        await other.send_all(says)
        expected = BOB.peer_id if initiator else None
        with pytest.raises(HandshakeError, match="no handshake within"):
            await Upgrader(ALICE.key_pair, ALL).upgrade(pipe, initiator=initiator, expected=expected)
        assert trio.current_time() == pytest.approx(HANDSHAKE_SECONDS)

    trio.run(main, clock=MockClock(autojump_threshold=0))


PIECES = st.sampled_from(
    [
        line("/multistream/1.0.0"),
        line("/noise"),
        line(AESGCM_LONG.protocol),
        line("na"),
        line("ls"),
        line("/tls/1.0.0"),
        b"\xff" * 10,
        # A first message whose key has no secret with anybody.
        b"\x00\x20" + bytes(32),
        b"\x00\x20" + bytes(range(32)),
    ]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=40), max_size=6).map(b"".join), st.booleans())
def test_any_bytes_are_a_handshake_error(data: bytes, initiator: bool) -> None:
    async def main() -> None:
        pipe, other = memory_stream_pair()
        await other.send_all(data)
        await other.send_eof()
        expected = BOB.peer_id if initiator else None
        with pytest.raises(HandshakeError):
            await Upgrader(ALICE.key_pair, ALL).upgrade(pipe, initiator=initiator, expected=expected)

    trio.run(main, clock=MockClock(autojump_threshold=0))


@settings(max_examples=100, deadline=None)
@given(st.booleans(), st.integers(0, 400 * 8 - 1))
def test_a_bit_turned_over_anywhere_deceives_nobody(there: bool, bit: int) -> None:
    """From the first byte to the muxer's: an end fails, or knows who the other one is, with keys that fit."""
    alter = flipped(bit)

    async def main() -> None:
        alice, bob = await upgraded(there=alter if there else same, back=same if there else alter)
        if isinstance(alice, Secured) and isinstance(bob, Secured):
            both((alice, bob))
        for end, peer_id in ((alice, BOB.peer_id), (bob, ALICE.peer_id)):
            assert isinstance(end, HandshakeError) or cast(Secured, end).peer_id == peer_id

    trio.run(main, clock=MockClock(autojump_threshold=0))


# Behind the handshake


@asynccontextmanager
async def sealed() -> AsyncIterator[tuple[SealedPipe, SealedPipe]]:
    alice, bob = both(await upgraded())
    one, other = memory_stream_pair()
    yield SealedPipe(one, alice.sealer, alice.opener), SealedPipe(other, bob.sealer, bob.opener)


@trio_test
async def test_what_came_behind_the_negotiation_is_the_muxers() -> None:
    """Frames in the same record as the choice of the muxer."""
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def dial() -> None:
            upgrader = Upgrader(ALICE.key_pair, (NOISE,))
            await select(client, NOISE.protocol)
            keys = await upgrader._noise.initiate(client, NOISE, BOB.peer_id)
            await SealedPipe(client, keys.sealer, keys.opener).send_all(optimistic(YAMUX) + b"frames")
            await SealedPipe(client, keys.sealer, keys.opener).send_all(b"next record")

        nursery.start_soon(dial)
        bob = await Upgrader(BOB.key_pair).upgrade(server, initiator=False, expected=None)
    assert bob.plain == b"frames"
    # The next record is still in the pipe, whole.
    pipe = SealedPipe(server, bob.sealer, bob.opener)
    assert await pipe.receive_some(4) == b"next"
    assert await pipe.receive_some(100) == b" record"


@pytest.mark.parametrize(
    "record",
    [(20).to_bytes(4, "big") + bytes(20), bytes(4), b"\xff\xff\xff\xff", (20).to_bytes(4, "big") + b"half"],
)
@trio_test
async def test_a_record_that_is_none(record: bytes) -> None:
    async with sealed() as (alice, bob):
        await alice.pipe.send_all(record)
        await cast(trio.StapledStream[Any, Any], alice.pipe).send_eof()
        with pytest.raises(HandshakeError):
            await bob.receive_some(1)


# Other implementations


class Raw(IRawConnection):
    """A trio stream in the shape that py-libp2p wants."""

    def __init__(self, stream: trio.abc.Stream, initiator: bool) -> None:
        self.stream = stream
        self.is_initiator = initiator

    async def read(self, n: int | None = None) -> bytes:
        return bytes(await self.stream.receive_some(n))

    async def write(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def close(self) -> None:
        await self.stream.aclose()

    def get_remote_address(self) -> tuple[str, int] | None:
        return None

    def get_transport_addresses(self) -> list[Any]:
        return []

    def get_connection_type(self) -> ConnectionType:
        return ConnectionType.UNKNOWN


@pytest.mark.parametrize("stock_dials", [True, False])
@trio_test
async def test_with_py_libp2p_s_own_noise(stock_dials: bool) -> None:
    """Their multistream and Noise against ours, over TCP, each in both places; then records both ways."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    ours_end, stock_end = Upgrader(ALICE.key_pair, ALL), Transport(BOB.key_pair, create_x25519().private_key)
    done: dict[str, Any] = {}

    async def ours(stream: trio.SocketStream) -> None:
        secured = await ours_end.upgrade(
            stream, initiator=not stock_dials, expected=None if stock_dials else BOB.peer_id
        )
        pipe = SealedPipe(stream, secured.sealer, secured.opener)
        await pipe.send_all(b"x" * NOISE.max_plain)
        done["got"] = await pipe.receive_some(100)
        done["ours"] = secured

    async def stock(stream: trio.SocketStream) -> None:
        raw = Raw(stream, stock_dials)
        noise = TProtocol("/noise")
        if stock_dials:
            await MultiselectClient().select_one_of([noise], MultiselectCommunicator(raw))
            session = await stock_end.secure_outbound(raw, ID.from_string(ALICE.peer_id))
            await MultiselectClient().select_one_of([TProtocol(YAMUX)], MultiselectCommunicator(session))
        else:
            await Multiselect(cast(Any, {noise: None})).negotiate(MultiselectCommunicator(raw))
            session = await stock_end.secure_inbound(raw)
            handlers = cast(Any, {TProtocol(YAMUX): None})
            await Multiselect(handlers).negotiate(MultiselectCommunicator(session))
        data = b""
        while len(data) < NOISE.max_plain:
            data += await session.read(NOISE.max_plain - len(data))
        await session.write(b"thanks")
        done["stock"] = str(session.get_remote_peer())
        done["read"] = data

    dialer, listener = (stock, ours) if stock_dials else (ours, stock)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            port = listeners[0].socket.getsockname()[1]
            nursery.start_soon(dialer, await trio.open_tcp_stream("127.0.0.1", port))
            await listener(await listeners[0].accept())
    await listeners[0].aclose()
    assert done["ours"].suite == NOISE
    assert done["ours"].peer_id == BOB.peer_id
    assert done["stock"] == ALICE.peer_id
    assert done["read"] == b"x" * NOISE.max_plain
    assert done["got"] == b"thanks"
