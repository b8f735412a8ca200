"""Two ends of a stream, with hived's own muxer and data plane on both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hived.transport.muxstream import MuxedStream
from tests.planes import connected


@asynccontextmanager
async def wire() -> AsyncIterator[tuple[MuxedStream, MuxedStream]]:
    """The opener's and the answerer's end of one stream."""
    async with connected() as (opener, answerer):
        yield await opener.open(), await answerer.accept()
