"""A round of records with a member that sends any messages: it ends, and what it makes hived send is bounded.

First byte: which side and version; then messages, each with a length in front.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgspec
import trio

from hived.overlay import exchange
from hived.overlay.exchange import BATCH, Batch, Copy, Digest
from hived.overlay.ranges import Compare, Comparison, key_of
from hived.overlay.wire import Message, ProtocolError
from hived.transport.muxstream import MuxedStream

from .ranges import AUTHORS, HELD, held
from .target import Script, Target

ENVELOPE = b"e" * 100


class Stream:
    """A member that has sent everything already, and takes what it is sent."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.sent = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        part, self._data = self._data[:max_bytes], self._data[max_bytes or len(self._data) :]
        return part

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += len(data)

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()


async def scene(data: bytes) -> None:
    script = Script(data)
    how = script.byte() % 4
    said = b""
    wanted = 0
    while script:
        body = script.piece()
        wanted += len(body)
        said += len(body).to_bytes(4, "big") + body
    stream, comparison, found = Stream(said), Comparison(held()), 0
    have = {author: 1000 + number for number, author in enumerate(AUTHORS[:HELD])}

    def find(authors: Iterable[str]) -> list[Copy]:
        nonlocal found
        copies = [Copy(ENVELOPE, 1.0) for author in authors if author in have]
        found += len(copies)
        return copies

    async def take(copies: list[Copy]) -> None:
        await trio.lowlevel.checkpoint()
        assert len(copies) <= BATCH
        assert all(0 <= copy.age < 2**40 for copy in copies)

    muxed = cast(MuxedStream, stream)
    try:
        if how == 0:
            await exchange.answer_round(muxed, comparison, find, take)
        elif how == 1:
            await exchange.open_round(muxed, comparison, find, take)
        elif how == 2:
            await exchange.answer_first(muxed, have, find, take)
        else:
            await exchange.open_first(muxed, have, find, take)
    except ProtocolError:
        pass
    # What differs, and what the member asked for by name.
    assert found <= HELD + wanted
    assert stream.sent < 200_000 + 1000 * len(data)


def run(data: bytes) -> None:
    trio.run(scene, data)


def seeds() -> list[bytes]:
    def turn(*messages: Message) -> bytes:
        bodies = [msgspec.msgpack.encode(message) for message in messages]
        return b"".join(len(body).to_bytes(2, "big") + body for body in bodies)

    key, author, odd = key_of(AUTHORS[0]), AUTHORS[0], cast(Any, [float("nan")])
    two = Batch(records=[ENVELOPE] * 2, ages=[1.0, 2.0])
    turns = [
        b"",
        turn(Compare(), Batch()),
        turn(Compare(splits={"": b"x"}), Compare(lists={key[:2]: {key: 5}}), Batch(want=[key])),
        turn(Compare(lists={key[:2]: {key: 2**40}}), Compare(), two),
        turn(Compare(lists={key[:2]: {}}), Compare(), Batch(more=True), Batch(records=[ENVELOPE] * 65)),
        turn(Compare(lists={"0": {}}), Compare(), Batch(records=[b""], ages=odd)),
        turn(Digest(have={author: 1, "another": 2}), Batch(records=[b""]), Batch()),
        turn(Batch(want=[author] * 9), Batch(records=[b""], ages=[-1.0])),
        turn(Digest(), Batch(more=True), Batch()),
    ]
    return [bytes([how]) + said for how in range(4) for said in turns]


TARGET = Target("exchange", run, seeds, most_bytes=8 * 1024)
