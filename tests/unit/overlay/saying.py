"""What tests of records between nodes say and ask: publish, push as a member does, let days pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hived.overlay.connection import STREAM_ERRORS
from hived.overlay.exchange import SYNC, Batch, Open
from hived.overlay.identity import Identity
from hived.overlay.networkkeys import network_id
from hived.overlay.records import NodeRecord, SignedRecord, sign
from hived.overlay.wire import send
from tests.unit.overlay.handclock import DAY, NOW, HandClock
from tests.unit.overlay.parties import NETWORK, Party

STEP = 120.0
"""Seconds between two looks at the clock; more does not count as time in touch."""


def name_of(one: Party, other: Party | str, network: str = NETWORK) -> str | None:
    """What ``one`` believes that the other is called."""
    record = one.records.get(network, other if isinstance(other, str) else other.peer_id)
    return record.name if record else None


@dataclass(frozen=True)
class Stranger:
    """An author without a node."""

    identity: Identity

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    def record(self, seq: int, **changes: Any) -> SignedRecord:
        values = {"name": "s" + self.peer_id[-8:], "issued": NOW, **changes}
        record = NodeRecord(network=network_id(NETWORK), peer_id=self.peer_id, seq=seq, **values)
        return sign(record, self.identity.key_pair)


def strangers(count: int, first: int = 1) -> list[Stranger]:
    return [Stranger(Identity.from_seed(n.to_bytes(32, "big"))) for n in range(first, first + count)]


async def publish(one: Party, name: str, *networks: str) -> None:
    await one.records.publish(name, [one.address], networks or [NETWORK])


async def push(sender: Party, receiver: Party, envelopes: list[bytes], network: str = NETWORK) -> None:
    """Send a batch as a member does; returns when the other side has taken or refused it."""
    connection = sender.host.find(receiver.peer_id, network)
    assert connection is not None
    stream = await connection.open_stream(SYNC)
    await send(stream, Open(network=network_id(network)))
    await send(stream, Batch(records=envelopes))
    await stream.send_eof()
    try:
        while await stream.receive_some():
            pass
    except STREAM_ERRORS:
        pass


async def pass_days(one: Party, time: HandClock, days: float, *, house: bool = True) -> None:
    """Let days pass for one node, in steps as long as the clock of its records takes them."""
    steps = round(days * DAY / STEP)
    for _ in range(steps):
        time.go(STEP)
        one.records.tick()
    if house:
        await one.records.expire()
        await one.records.save()


def touch(one: Party) -> float:
    return one.records.ledger(NETWORK).touch


def is_known(one: Party, other: Party | str) -> bool:
    return name_of(one, other) is not None
