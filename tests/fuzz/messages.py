"""Every message of the /hive protocols: any bytes decode to one that says the same when encoded again, or are
a ProtocolError; a stream of them takes no more memory than the reader allows.

First byte: which message; second: how many bytes come at a time. Then one body, or a stream with lengths.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from zlib import crc32

import msgspec
import trio

import hived
from hived.overlay.wire import LENGTH_BYTES, Message, ProtocolError, decode, encode, receive

from .target import Script, Target, at_once

LIMIT = 1024


def kinds() -> list[type[Message]]:
    """Every message that a module of hived defines."""
    for module in pkgutil.walk_packages(hived.__path__, "hived."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: list[type[Message]] = []
    waiting: list[type[Message]] = [Message]
    while waiting:
        subclasses = waiting.pop().__subclasses__()
        waiting += subclasses
        found += [kind for kind in subclasses if kind.__module__.startswith("hived.")]
    return sorted(found, key=lambda kind: f"{kind.__module__}.{kind.__name__}")


KINDS = kinds()


def kind_of(number: int) -> type[Message]:
    """The message that a byte stands for; a further kind changes few of these."""
    return max(KINDS, key=lambda kind: crc32(f"{number} {kind.__module__}.{kind.__name__}".encode()))


class Pieces(trio.abc.ReceiveStream):
    """A stream that has all its bytes already and gives at most ``size`` of them at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._size = size
        self.most_asked = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        self.most_asked = max(self.most_asked, max_bytes or 0)
        count = min(self._size, max_bytes or self._size)
        part, self._data = self._data[:count], self._data[count:]
        return part

    async def aclose(self) -> None:
        self._data = b""


def check(body: bytes, kind: type[Message]) -> None:
    try:
        message = decode(body, kind)
    except ProtocolError:
        return
    assert type(message) is kind
    again = decode(encode(message)[LENGTH_BYTES:], kind)
    # By their bytes: a NaN is not equal to itself.
    assert msgspec.msgpack.encode(again) == msgspec.msgpack.encode(message)


def run(data: bytes) -> None:
    script = Script(data)
    number, size = script.byte(), script.byte()
    kind = kind_of(number)
    body = script.rest()
    if not size:
        check(body, kind)
        return
    stream = Pieces(body, size)
    for _ in range(len(body) // LENGTH_BYTES + 1):
        try:
            at_once(receive(stream, kind, LIMIT))
        except ProtocolError:
            break
    else:
        raise AssertionError("more messages than the bytes hold")
    assert stream.most_asked <= LIMIT


def seeds() -> list[bytes]:
    return list(_seeds())


def _seeds() -> Iterator[bytes]:
    values: dict[type, list[object]] = {
        bytes: [b"", b"b" * 33],
        str: ["", "text"],
        int: [0, 2**63, -1],
        float: [0.5, float("nan"), float("inf")],
        bool: [True],
    }
    for number in range(256):
        kind = kind_of(number)
        if any(kind_of(before) is kind for before in range(number)):
            continue
        for at in range(3):
            fields: dict[str, object] = {"later": [at]}
            for field in msgspec.structs.fields(kind):
                choice = values.get(field.type, [])
                text = str(field.type)
                if choice:
                    fields[field.encode_name] = choice[at % len(choice)]
                elif text.startswith("list["):
                    fields[field.encode_name] = [values[bytes if "bytes" in text else str][1]] * at
                elif text.startswith("dict["):
                    inner: object = {"0a" * 16: at} if "dict[str, dict" in text else at
                    fields[field.encode_name] = {"0" * at: b"f" * 16 if "bytes" in text else inner}
            body = msgspec.msgpack.encode(fields)
            yield bytes([number, 0]) + body
            yield bytes([number, 7]) + (len(body).to_bytes(4, "big") + body) * (at + 1)
    yield bytes([0, 1]) + (LIMIT + 1).to_bytes(4, "big")
    yield bytes([0, 255]) + b"\0\0\0\x05abc"


TARGET = Target("messages", run, seeds)
