"""The data plane's thread, for as long as a block of trio's lasts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from .plane import Plane


async def answer(plane: Plane) -> None:
    """Returns when the loop has had a turn."""
    answered = trio.Event()
    plane.call(plane.tell, answered.set)
    await answered.wait()


@asynccontextmanager
async def running(plane: Plane) -> AsyncIterator[None]:
    """The loop's thread runs within the block, also for those who clean up in it when it is cancelled.

    Raises what the loop itself died of: a defect.
    """
    ended = trio.Event()
    failure: list[BaseException] = []
    token = trio.lowlevel.current_trio_token()
    plane.begin(token)

    def loop() -> None:
        try:
            # As top -H and ps show it.
            with contextlib.suppress(OSError):
                Path("/proc/thread-self/comm").write_text(thread.name)
            plane.loop()
        except BaseException as error:
            failure.append(error)
        finally:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(ended.set)

    async def watch() -> None:
        await ended.wait()
        raise failure[0]

    thread = threading.Thread(target=loop, name="hive-plane", daemon=True)
    thread.start()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            yield
            nursery.cancel_scope.cancel()
    finally:
        plane.call(plane.stop)
        # One pass of the loop, which waits for nobody.
        thread.join(5.0)
        plane.close()
