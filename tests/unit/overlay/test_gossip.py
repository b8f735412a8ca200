"""Members that lie, flood, drip or say nothing: a bounded cost, few lines, and the others go on."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from trio.testing import trio_test

from hived.overlay import exchange
from hived.overlay.connection import STREAM_ERRORS, Connection
from hived.overlay.exchange import BATCH, SYNC, SYNC_FIRST, Batch, Digest, Open
from hived.overlay.gossip import MAX_EXCHANGES
from hived.overlay.identity import Identity
from hived.overlay.ledger import EXPIRY_SECONDS
from hived.overlay.networkkeys import network_id
from hived.overlay.quota import MAX_NEW_AUTHORS
from hived.overlay.ranges import Compare, key_of
from hived.overlay.records import Claim, NodeRecord, SignedRecord, sign
from hived.overlay.wire import encode, receive, send
from hived.transport.muxstream import MuxedStream
from tests.unit.overlay.parties import NETWORK, Logged, Party, party, synced, until

ID = network_id(NETWORK)
ONE_CHANGE_SECONDS = 5.0


@dataclass
class Proofs:
    """How many signatures were checked: what records cost most."""

    count: int = 0


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> Proofs:
    counted, prove = Proofs(), Claim.prove

    def counting(claim: Claim) -> object:
        counted.count += 1
        return prove(claim)

    monkeypatch.setattr(Claim, "prove", counting)
    return counted


@dataclass(frozen=True)
class Scene:
    """Alice and Bob keep a network; Mallory is a member of it with a connection to Alice."""

    alice: Party
    bob: Party
    mallory: Party
    connection: Connection

    async def others_go_on(self) -> None:
        """A change of Alice's reaches Bob, and one of Bob's Alice, in the promised time."""
        name = f"n{time.monotonic_ns()}"
        with trio.fail_after(ONE_CHANGE_SECONDS):
            for one, other in ((self.alice, self.bob), (self.bob, self.alice)):
                await one.records.publish(name, [one.address], [NETWORK])
                await until(functools.partial(self._has, other, one.peer_id, name))

    @staticmethod
    def _has(one: Party, peer_id: str, name: str) -> bool:
        record = one.records.get(NETWORK, peer_id)
        return record is not None and record.name == name

    async def open(self, *, round: bool = False, protocol: str = SYNC) -> MuxedStream:
        stream = await self.connection.open_stream(protocol)
        await send(stream, Open(network=ID, round=round))
        return stream

    async def push(self, envelopes: list[bytes], more: bool = False) -> bool:
        """A push of Mallory's; whether Alice took it to the end."""
        try:
            stream = await self.open()
            parts = [envelopes[at : at + BATCH] for at in range(0, len(envelopes), BATCH)]
            for number, part in enumerate(parts, 1):
                await send(stream, Batch(records=part, more=more or number < len(parts)))
            await stream.send_eof()
            return await stream.receive_some(1) == b""
        except STREAM_ERRORS:
            return False


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    async with (
        synced("a", directory) as alice,
        synced("b", directory) as bob,
        party("m") as mallory,
    ):
        await alice.joined(bob)
        yield Scene(alice, bob, mallory, await mallory.joined(alice))


async def drained(stream: MuxedStream) -> None:
    """Read until the other end ends it, one way or another."""
    with suppress(*STREAM_ERRORS):
        while await stream.receive_some(65536):
            pass


def invented(number: int, seq: int = 1) -> bytes:
    author = Identity.from_seed(number.to_bytes(32, "big"))
    record = NodeRecord(network=ID, peer_id=author.peer_id, name=f"n{number}", seq=seq, issued=1.0)
    return sign(record, author.key_pair).envelope


def lines(logged: Logged, party: Party) -> int:
    """Warnings and errors about a member."""
    return sum(
        record.levelname in {"WARNING", "ERROR"}
        and getattr(record, "fields", {}).get("peer") == party.peer_id
        for record in logged.records
    )


# Records without end


@trio_test
async def test_an_own_record_that_changes_a_thousand_times(
    tmp_path: Path, logged: Logged, proofs: Proofs
) -> None:
    async with scene(tmp_path) as s:
        told: list[str] = []
        s.bob.records.on_change.append(lambda network, record: told.append(record.peer_id))
        for seq in range(1, 1001):
            await s.push([s.mallory.record(seq).envelope])
        await s.others_go_on()
        assert proofs.count < 250
        assert told.count(s.mallory.peer_id) <= 60
        assert 1 <= lines(logged, s.mallory) <= 4
        # Nothing is lost: what it says last is taken when it has calmed down.
        s.alice.records.budgets.updates._left.clear()
        assert await s.push([s.mallory.record(5000, name="last").envelope])
        await until(functools.partial(Scene._has, s.bob, s.mallory.peer_id, "last"))


@trio_test
async def test_a_thousand_changes_in_one_push_are_one(tmp_path: Path, logged: Logged, proofs: Proofs) -> None:
    async with scene(tmp_path) as s:
        changes: list[str] = []
        s.alice.records.on_change.append(lambda network, record: changes.append(record.peer_id))
        await s.push([s.mallory.record(1).envelope])
        await s.push([s.mallory.record(seq).envelope for seq in range(2, 1002)])
        assert proofs.count <= 100
        assert changes.count(s.mallory.peer_id) <= 17
        await s.others_go_on()


@trio_test
async def test_invented_authors_stop_at_the_quota(tmp_path: Path, logged: Logged, proofs: Proofs) -> None:
    async with scene(tmp_path) as s:
        ledger = s.alice.records.ledger(NETWORK)
        # In a network's first hour it may be as many as there may be at all.
        for one in (s.alice, s.bob):
            one.records.ledger(NETWORK).touch = 5 * 3600.0
        await s.push([invented(number) for number in range(500)])
        # A few more than at once: the allowance fills again as time passes.
        assert MAX_NEW_AUTHORS <= len(ledger) <= MAX_NEW_AUTHORS + 5
        # Alice proves what she takes and no more, and so does Bob, whom she tells.
        assert proofs.count <= 2 * len(ledger) + 5
        for first in range(1000, 5000, 500):
            await s.push([invented(number) for number in range(first, first + 500)])
        assert len(ledger) <= MAX_NEW_AUTHORS + 5
        await s.others_go_on()
        assert 1 <= lines(logged, s.mallory) <= 4


@trio_test
async def test_stale_records_without_end(tmp_path: Path, logged: Logged, proofs: Proofs) -> None:
    """They are not even proved; after some thousands Mallory is turned away for a while."""
    async with scene(tmp_path) as s:
        stale = [s.mallory.record(1).envelope] * (BATCH * 16)
        taken = 0
        for _ in range(100):
            taken += await s.push(stale)
        assert proofs.count <= BATCH + 10
        assert taken <= 5
        assert 1 <= lines(logged, s.mallory) <= 2
        await s.others_go_on()


@trio_test
async def test_the_receivers_own_stale_record_is_stale_too(tmp_path: Path, logged: Logged) -> None:
    async with scene(tmp_path) as s:
        old = s.alice.record(5).envelope
        await s.alice.records.publish("alpha", [s.alice.address], [NETWORK])
        taken = sum([await s.push([old] * (BATCH * 16)) for _ in range(50)])
        assert taken <= 5
        await s.others_go_on()


@trio_test
async def test_bad_signatures_without_end(tmp_path: Path, logged: Logged, proofs: Proofs) -> None:
    async with scene(tmp_path) as s:
        good = s.mallory.record(1, name="spoiled")
        bad = good.envelope.replace(b"spoiled", b"spoiler")
        for _ in range(500):
            assert not await s.push([bad] * BATCH)
        assert proofs.count <= 25
        assert 1 <= lines(logged, s.mallory) <= 25
        assert s.alice.records.get(NETWORK, s.mallory.peer_id) is None
        await s.others_go_on()


# Lies in digests


@trio_test
async def test_always_other_fingerprints(tmp_path: Path, logged: Logged) -> None:
    """As the opener. Each round ends after a few turns, and there are only so many rounds."""
    async with scene(tmp_path) as s:
        served = 0
        for number in range(60):
            with suppress(*STREAM_ERRORS):
                stream = await s.open(round=True)
                for turn in range(20):
                    await send(stream, Compare(splits={"": f"{number}.{turn}".encode().ljust(16)}))
                    await receive(stream, Compare, 1024 * 1024)
                    served += 1
            stream.reset()
        assert served <= 20 * 15
        await s.others_go_on()
        assert 1 <= lines(logged, s.mallory) <= 6


Answer = Callable[[MuxedStream], Awaitable[None]]


async def rounds_with(s: Scene, answer: Answer, count: int) -> list[bool]:
    """Rounds that Alice opens with Mallory, who answers as told; whether each ended in time."""
    assert s.alice.gossip is not None
    connection = s.alice.host.find(s.mallory.peer_id, NETWORK)
    assert connection is not None

    async def serve(stream: MuxedStream, _: Connection) -> None:
        if (await exchange.receive_open(stream)).round:
            await answer(stream)

    s.mallory.host.member_handlers[SYNC] = serve
    ended = []
    for _ in range(count):
        with trio.move_on_after(2.0) as scope:
            await s.alice.gossip.round(connection, NETWORK)
        ended.append(not scope.cancelled_caught)
    return ended


@trio_test
async def test_a_promise_that_is_not_kept(tmp_path: Path, logged: Logged) -> None:
    """Mallory claims higher sequences than exist and authors that do not, and sends nothing."""
    async with scene(tmp_path) as s:
        await s.others_go_on()
        assert await s.push([s.mallory.record(1, name="mallory").envelope])

        async def lie(stream: MuxedStream) -> None:
            await exchange._hear(stream, Compare, 2**20)
            known = s.alice.records.ledger(NETWORK).records
            claimed = [*known, *(f"nobody-{number}" for number in range(500))]
            await send(stream, Compare(lists={"": {key_of(author): 2**52 for author in claimed}}))
            await exchange._hear(stream, Compare, 2**20)
            await exchange._hear(stream, Batch, 2**21)
            await send(stream, Batch())

        assert all(await rounds_with(s, lie, 20))
        told = logged.having("a member's digest is wrong")
        assert 1 <= len(told) <= 2
        assert told[0]["name"] == "mallory"
        # It has used up what it may cost, and more.
        assert s.alice.records.budgets.useless.left(s.mallory.peer_id, time.monotonic()) < 0
        await s.others_go_on()


@trio_test
async def test_a_digest_that_differs_where_the_list_does_not(tmp_path: Path, logged: Logged) -> None:
    async with scene(tmp_path) as s:
        await s.others_go_on()

        async def lie(stream: MuxedStream) -> None:
            await exchange._hear(stream, Compare, 2**20)
            await send(stream, Compare(lists={"": s.alice.records.ledger(NETWORK).ranges.list("")}))
            await exchange._hear(stream, Compare, 2**20)
            await exchange._hear(stream, Batch, 2**21)
            await send(stream, Batch())

        assert all(await rounds_with(s, lie, 20))
        assert 1 <= len(logged.having("a member's digest is wrong")) <= 2
        await s.others_go_on()


@trio_test
async def test_quiet_rounds_accuse_nobody(tmp_path: Path, logged: Logged) -> None:
    """On either side, in either version, with nothing, little and much in common."""
    async with synced("a", tmp_path) as alice, synced("b", tmp_path) as bob:
        connection = await alice.joined(bob)
        assert alice.gossip is not None
        for count in (0, 5, 100):
            for one in (alice, bob):
                taken = [(one.record(1), 0.0)] if count == 0 else []
                await one.records.keep(NETWORK, taken, None)
            for number in range(count):
                author = Identity.from_seed((number + 1).to_bytes(32, "big"))
                record = NodeRecord(network=ID, peer_id=author.peer_id, name=f"q{number}", seq=1, issued=1.0)
                signed = sign(record, author.key_pair)
                for one in (alice, bob):
                    await one.records.keep(NETWORK, [(signed, 0.0)], None)
            for _ in range(4):
                await alice.gossip.round(connection, NETWORK)
    assert logged.having("a member's digest is wrong") == []
    assert [r for r in logged.records if r.levelname in {"WARNING", "ERROR"}] == []


@trio_test
async def test_what_one_has_buried_accuses_nobody(tmp_path: Path, logged: Logged) -> None:
    """Alice has dropped a record as too old that Bob still keeps: they differ, and both are honest."""
    async with synced("a", tmp_path) as alice, synced("b", tmp_path) as bob:
        old = sign_big(1)[0]
        await alice.records.keep(NETWORK, [(old, EXPIRY_SECONDS + 1)], None)
        await alice.records.expire()
        await bob.records.keep(NETWORK, [(old, EXPIRY_SECONDS - 3600)], None)
        there = await alice.joined(bob)
        back = bob.host.find(alice.peer_id, NETWORK)
        assert back is not None
        assert alice.gossip is not None
        assert bob.gossip is not None
        for gossip, connection in ((alice.gossip, there), (bob.gossip, back)):
            for _ in range(6):
                await gossip.round(connection, NETWORK)
        assert alice.records.get(NETWORK, old.record.peer_id) is None
    assert logged.having("a member's digest is wrong") == []


@trio_test
async def test_a_member_that_learns_meanwhile_is_not_accused(tmp_path: Path, logged: Logged) -> None:
    """It lacked a record in the first turn, and got it from somebody else before the second."""
    async with scene(tmp_path) as s:
        for number in range(1, 60):
            author = Identity.from_seed(number.to_bytes(32, "big"))
            record = NodeRecord(network=ID, peer_id=author.peer_id, name=f"q{number}", seq=1, issued=1.0)
            await s.alice.records.keep(NETWORK, [(sign(record, author.key_pair), 0.0)], None)
        ranges = s.alice.records.ledger(NETWORK).ranges

        async def learn(stream: MuxedStream) -> None:
            await exchange._hear(stream, Compare, 2**20)
            # Its own fingerprints before: one part was another.
            splits = ranges.split("")
            await send(stream, Compare(splits={**splits, "3": b"without one more"}))
            await exchange._hear(stream, Compare, 2**20)
            await send(stream, Compare())
            await exchange._hear(stream, Batch, 2**21)
            await send(stream, Batch())

        assert all(await rounds_with(s, learn, 1))
        assert logged.having("a member's digest is wrong") == []


# Members that hold others up


@trio_test
async def test_a_thousand_silent_exchanges(tmp_path: Path, logged: Logged) -> None:
    async with scene(tmp_path) as s, trio.open_nursery() as nursery:
        streams: list[MuxedStream] = []
        for _ in range(1000):
            with suppress(*STREAM_ERRORS):
                streams.append(await s.connection.open_stream(SYNC))
        assert s.alice.gossip is not None
        served = s.alice.gossip._serving[s.mallory.peer_id]
        assert served <= MAX_EXCHANGES
        for stream in streams:
            nursery.start_soon(drained, stream)
        await s.others_go_on()
        with trio.fail_after(5):
            # All but those sixteen were reset at once.
            await until(lambda: len(nursery.child_tasks) <= MAX_EXCHANGES)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("protocol", [SYNC, SYNC_FIRST])
@trio_test
async def test_a_member_that_never_reads(tmp_path: Path, logged: Logged, protocol: str) -> None:
    """It wants all that there is, sixteen times, and takes nothing."""
    async with scene(tmp_path) as s:
        signed = [sign_big(number) for number in range(1, 400)]
        await s.alice.records.keep(NETWORK, signed, None)
        for _ in range(MAX_EXCHANGES + 5):
            with suppress(*STREAM_ERRORS):
                stream = await s.open(round=True, protocol=protocol)
                if protocol == SYNC:
                    await send(stream, Compare(splits={"": b"x" * 16}, lists={}))
                    await send(stream, Compare())
                    await send(stream, Batch(want=list(s.alice.records.ledger(NETWORK).ranges.list(""))))
                else:
                    await send(stream, Digest())
        await s.others_go_on()
        connection = s.alice.host.find(s.mallory.peer_id)
        assert connection is not None
        assert connection.streams <= MAX_EXCHANGES


def sign_big(number: int) -> tuple[SignedRecord, float]:
    """A record of nearly the most that one may have."""
    author = Identity.from_seed(number.to_bytes(32, "big"))
    record = NodeRecord(
        network=ID,
        peer_id=author.peer_id,
        name=f"big{number}",
        seq=1,
        issued=1.0,
        capabilities=["x" * 1000] * 7,
    )
    return sign(record, author.key_pair), 0.0


@trio_test
async def test_a_byte_a_second(tmp_path: Path, logged: Logged) -> None:
    """Sixteen pushes that drip, and rounds: the others do not notice."""
    async with scene(tmp_path) as s, trio.open_nursery() as nursery:

        async def drip(round: bool) -> None:
            with suppress(*STREAM_ERRORS):
                stream = await s.open(round=round)
                for byte in encode(Batch(records=[s.mallory.record(1).envelope])):
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(1)

        for number in range(40):
            nursery.start_soon(drip, number % 2 == 0)
        assert s.alice.gossip is not None
        serving = s.alice.gossip._serving
        await until(lambda: serving[s.mallory.peer_id] == MAX_EXCHANGES)
        await s.others_go_on()
        await s.others_go_on()
        nursery.cancel_scope.cancel()


@trio_test
async def test_a_member_that_takes_no_push(tmp_path: Path, logged: Logged) -> None:
    """Each change costs no stream of its own while it sits on one."""
    async with scene(tmp_path) as s:
        opened = 0

        async def sit(stream: MuxedStream, _: Connection) -> None:
            nonlocal opened
            opened += 1
            await trio.sleep_forever()

        s.mallory.host.member_handlers[SYNC] = sit
        for _ in range(10):
            await s.others_go_on()
        assert opened == 1
        connection = s.alice.host.find(s.mallory.peer_id)
        assert connection is not None
        assert connection.muxer.stream_count <= 2


@trio_test
async def test_a_member_that_refuses_every_push_has_a_rest(tmp_path: Path, logged: Logged) -> None:
    async with scene(tmp_path) as s:
        opened = 0

        async def refuse(stream: MuxedStream, _: Connection) -> None:
            nonlocal opened
            opened += 1
            stream.reset()

        s.mallory.host.member_handlers |= {SYNC: refuse, SYNC_FIRST: refuse}
        for _ in range(20):
            await s.others_go_on()
        assert opened <= 6
        assert lines(logged, s.mallory) == 1


# Versions


@trio_test
async def test_a_member_of_the_first_version(tmp_path: Path, logged: Logged) -> None:
    """Pushes and rounds fall back, both ways."""
    async with synced("a", tmp_path) as alice, synced("b", tmp_path) as bob:
        del bob.host.member_handlers[SYNC]
        await alice.records.publish("alpha", [alice.address], [NETWORK])
        await bob.records.publish("beta", [bob.address], [NETWORK])
        await alice.joined(bob)
        await until(functools.partial(Scene._has, alice, bob.peer_id, "beta"))
        await until(functools.partial(Scene._has, bob, alice.peer_id, "alpha"))
        await alice.records.publish("omega", [alice.address], [NETWORK])
        await until(functools.partial(Scene._has, bob, alice.peer_id, "omega"))


@trio_test
async def test_a_member_of_no_known_version_is_named(tmp_path: Path, logged: Logged) -> None:
    async with synced("a", tmp_path) as alice, party("b") as bob:
        connection = await alice.joined(bob)
        assert alice.gossip is not None
        for _ in range(20):
            await alice.gossip.round(connection, NETWORK)
        assert 1 <= len(logged.having("speaks no version of /hive/sync")) <= 2
        assert lines(logged, bob) <= 3
