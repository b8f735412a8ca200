"""Changes wait in a queue for each member: an author's newest, one push at a time, a rest for the deaf."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, trio_test, wait_all_tasks_blocked

from hived.overlay import pushes as module
from hived.overlay.exchange import Copy
from hived.overlay.pushes import MAX_FAILURES, PACE_SECONDS, PAUSE_SECONDS, Pushes


@dataclass(eq=False)
class Member:
    """The other end: it takes what is sent, in ``seconds``, or refuses it."""

    seconds: float = 0.0
    takes: bool = True
    got: list[tuple[str, list[Copy]]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    pauses: int = 0

    async def send(self, network: str, copies: list[Copy]) -> bool:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await trio.sleep(self.seconds)
        self.at_once -= 1
        self.got.append((network, copies))
        return self.takes

    def on_pause(self) -> None:
        self.pauses += 1

    @property
    def envelopes(self) -> list[bytes]:
        return [copy.envelope for _, copies in self.got for copy in copies]


@asynccontextmanager
async def pushing(member: Member) -> AsyncIterator[Pushes]:
    async with trio.open_nursery() as nursery:
        yield Pushes(member.send, nursery, member.on_pause)
        nursery.cancel_scope.cancel()


def copy(content: str) -> Copy:
    return Copy(content.encode())


@trio_test
async def test_a_change_goes_at_once(autojump_clock: MockClock) -> None:
    member = Member()
    async with pushing(member) as pushes:
        pushes.offer("net", {"alice": copy("1")})
        await wait_all_tasks_blocked()
        assert trio.current_time() == 0.0
        assert member.got == [("net", [copy("1")])]


@trio_test
async def test_a_burst_goes_together_and_of_each_author_the_newest(autojump_clock: MockClock) -> None:
    member = Member(seconds=1.0)
    async with pushing(member) as pushes:
        pushes.offer("net", {"alice": copy("0")})
        await trio.sleep(0.5)
        for number in range(1000):
            pushes.offer("net", {"alice": copy(f"a{number}"), "bob": copy(f"b{number}")})
        await trio.sleep(5)
    assert member.got == [("net", [copy("0")]), ("net", [copy("a999"), copy("b999")])]
    assert member.most_at_once == 1


@trio_test
async def test_what_the_member_told_itself_is_not_told_back(autojump_clock: MockClock) -> None:
    member = Member(seconds=1.0)
    async with pushing(member) as pushes:
        pushes.offer("net", {"alice": copy("0")})
        await trio.sleep(0.5)
        pushes.offer("net", {"bob": copy("1"), "carol": copy("2")})
        pushes.known("net", ["bob", "nobody"])
        pushes.known("other", ["carol"])
        await trio.sleep(5)
    assert member.envelopes == [b"0", b"2"]


@trio_test
async def test_nothing_is_sent_where_all_is_known(autojump_clock: MockClock) -> None:
    member = Member(seconds=1.0)
    async with pushing(member) as pushes:
        pushes.offer("net", {"alice": copy("0")})
        await trio.sleep(0.5)
        pushes.offer("net", {"bob": copy("1")})
        pushes.known("net", ["bob"])
        await trio.sleep(5)
        pushes.offer("net", {"carol": copy("2")})
        await trio.sleep(5)
    assert member.envelopes == [b"0", b"2"]


@trio_test
async def test_networks_go_apart(autojump_clock: MockClock) -> None:
    member = Member()
    async with pushing(member) as pushes:
        pushes.offer("red", {"alice": copy("r")})
        pushes.offer("blue", {"alice": copy("b")})
        await trio.sleep(1)
    assert sorted(member.got, key=lambda got: got[0]) == [("blue", [copy("b")]), ("red", [copy("r")])]


@trio_test
async def test_a_member_that_takes_nothing_has_a_rest(autojump_clock: MockClock) -> None:
    """In an hour of a change a second: three tries, a minute's rest, and so on; one stream at a time."""
    member = Member(seconds=20.0, takes=False)
    async with pushing(member) as pushes:
        for number in range(3600):
            pushes.offer("net", {f"author{number % 10}": copy(str(number))})
            await trio.sleep(1)
        tries = len(member.got)
        assert member.most_at_once == 1
        assert member.pauses == tries // MAX_FAILURES
        assert tries <= 3600 / (MAX_FAILURES * 20 + PAUSE_SECONDS) * MAX_FAILURES + MAX_FAILURES
        # When it takes again, it is told again.
        member.takes = True
        await trio.sleep(PAUSE_SECONDS + 100)
        pushes.offer("net", {"alice": copy("back")})
        await trio.sleep(100)
    assert member.envelopes[-1] == b"back"


@trio_test
async def test_a_success_between_failures_counts(autojump_clock: MockClock) -> None:
    member = Member()
    async with pushing(member) as pushes:
        for number in range(30):
            member.takes = number % 3 == 2
            pushes.offer("net", {"alice": copy(str(number))})
            await trio.sleep(1)
    assert (member.pauses, len(member.got)) == (0, 30)


@trio_test
async def test_what_waits_is_bounded(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 100)
    member = Member(seconds=10.0)
    async with pushing(member) as pushes:
        pushes.offer("net", {"first": copy("first")})
        await trio.sleep(1)
        for number in range(1000):
            pushes.offer("net", {f"author{number}": copy(str(number))})
        await trio.sleep(30)
    assert member.envelopes == [b"first", *(str(number).encode() for number in range(900, 1000))]


steps = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["red", "blue"]), st.floats(0, 0.3)), max_size=40
)


@settings(max_examples=40, deadline=None)
@given(steps, st.floats(0, 0.2))
def test_the_newest_of_each_author_arrives_last(
    offered: list[tuple[str, str, float]], seconds: float
) -> None:
    """Whatever the timing, and never more pushes than changes, nor faster than the pace."""
    member, newest = Member(seconds=seconds), dict[tuple[str, str], bytes]()

    async def scene() -> float:
        async with pushing(member) as pushes:
            for number, (author, network, pause) in enumerate(offered):
                content = f"{author}{number}"
                pushes.offer(network, {author: copy(content)})
                newest[network, author] = content.encode()
                await trio.sleep(pause)
            await trio.sleep(60)
        return sum(pause for _, _, pause in offered)

    took = trio.run(scene, clock=MockClock(autojump_threshold=0))
    last: dict[tuple[str, str], bytes] = {}
    for network, copies in member.got:
        for sent in copies:
            last[network, sent.envelope.decode()[0]] = sent.envelope
    assert last == newest
    assert len(member.got) <= len(offered)
    assert len(member.got) <= took / PACE_SECONDS + 4
    assert member.most_at_once <= 1
