"""Half-closes and resets by Kubo and by Hive, through Kubo's relay: it passes both on as what they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.integration.peer import act
from tests.interop.circuit import Circuits, circuits
from tests.interop.services import MB, download, echo, upload
from tests.interop.stock import Stock

pytestmark = pytest.mark.requires("kubo")


def scene(go: Stock, play: Callable[[Circuits], Awaitable[None]]) -> None:
    async def played() -> None:
        async with circuits(go) as both:
            await play(both)

    act(played, 60)


@pytest.mark.parametrize("size", [0, 1, 65_000, 10 * MB])
def test_each_end_may_end_its_side_first(go: Stock, size: int) -> None:
    """To Kubo and from Kubo: whoever is ended upon still sends all it has."""

    async def play(both: Circuits) -> None:
        await upload(await both.open("sink"), size)
        sent = await download(await both.open("source"), size, after=size)
        assert (await both.far.services.told.receive())["sha256"] == sent

    scene(go, play)


def test_a_reset_is_seen_as_one(go: Stock) -> None:
    async def play(both: Circuits) -> None:
        stream = await both.open("hold")
        await stream.send_all(b"x")
        assert await stream.receive_some() == b"held"
        stream.reset()
        assert (await both.far.services.told.receive())["end"] == "reset"

        stream = await both.open("reset")
        await stream.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert stream.was_reset
        # The connections are none the worse for it.
        await echo(await both.open("echo"), MB)

    scene(go, play)
