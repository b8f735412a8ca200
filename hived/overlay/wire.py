"""Messages of the /hive protocols: a 4-byte big-endian length, then MessagePack.

Fields that a reader does not know are ignored; a message that does not fit its type,
or is longer than its reader allows, is a ProtocolError.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
import trio

T = TypeVar("T")
LENGTH_BYTES = 4
MAX_MESSAGE = 64 * 1024


class ProtocolError(Exception):
    """The other side sent what the protocol does not allow."""


class Message(msgspec.Struct, omit_defaults=True):
    """Base of every message: a map of short field names."""


def encode(message: Message) -> bytes:
    """A message with its length in front."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def decode(body: bytes, kind: type[T]) -> T:
    """A message's body (without length) as ``kind``. Raises ProtocolError."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a {kind.__name__}: {error}") from None


async def send(stream: trio.abc.SendStream, message: Message) -> None:
    await stream.send_all(encode(message))


async def receive_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """``count`` bytes. Raises ProtocolError when the stream ends before."""
    data = bytearray()
    while len(data) < count:
        part = await stream.receive_some(count - len(data))
        if not part:
            raise ProtocolError("the stream ended inside a message")
        data += part
    return bytes(data)


async def receive(stream: trio.abc.ReceiveStream, kind: type[T], limit: int = MAX_MESSAGE) -> T:
    """The next message. Raises ProtocolError; memory is bounded by ``limit`` bytes."""
    length = int.from_bytes(await receive_exactly(stream, LENGTH_BYTES), "big")
    if length > limit:
        raise ProtocolError(f"a message of {length} bytes; the limit is {limit}")
    return decode(await receive_exactly(stream, length), kind)
