"""Two ends of a stream in memory, with hived's own muxer on both: time may be trio's mock clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import memory_stream_pair

from hived.transport.muxer import Muxer
from hived.transport.muxstream import MuxedStream


@asynccontextmanager
async def wire() -> AsyncIterator[tuple[MuxedStream, MuxedStream]]:
    """The opener's and the answerer's end of one stream."""
    here, there = memory_stream_pair()
    opener, answerer = Muxer(here, initiator=True), Muxer(there, initiator=False)
    async with trio.open_nursery() as nursery:
        await nursery.start(opener.run)
        await nursery.start(answerer.run)
        near = await opener.open()
        far = await answerer.accept()
        yield near, far
        nursery.cancel_scope.cancel()
