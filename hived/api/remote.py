"""The second door: the same API to members over the overlay, ``/hive/api/1.0.0``.

The opener names the network; after that the stream carries HTTP/1.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import unreachable
from ..overlay.connection import STREAM_ERRORS
from ..overlay.networkkeys import network_id
from ..overlay.wire import Message, send
from ..transport.muxstream import MuxedStream

if TYPE_CHECKING:
    from .node import Node

API = "/hive/api/1.0.0"


class Open(Message):
    """The first message: the network in which the opener calls."""

    network: bytes


async def open_api(node: Node, peer_id: str, network: str) -> MuxedStream:
    """A stream to a member that carries its API. Raises HiveError (unreachable, denied)."""
    stream, _ = await node.peers.open_stream(peer_id, network, API)
    try:
        await send(stream, Open(network=network_id(network)))
    except STREAM_ERRORS as error:
        stream.reset()
        raise unreachable(f"reaching {peer_id} failed", "the connection ended", "Try again") from error
    except BaseException:
        stream.reset()
        raise
    return stream
