"""The end of an incoming stream while its first bytes are looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .stream import Stream

# No opening that is worth the fast way is longer.
_MAX_BYTES: Final = 1024

Greeter = Callable[[Stream, bytes], bool | None]
"""Is given a stream and all that has come of it: True keeps the stream, with another end attached and
the bytes dealt with; False leaves it; None waits for more."""


class Greeting:
    """Asks ``greeter`` until it says yes or no; ``leave`` is called with a stream that it leaves."""

    __slots__ = ("_data", "_greeter", "_leave", "readable", "stream")

    def __init__(self, stream: Stream, greeter: Greeter, leave: Callable[[Stream], None]) -> None:
        self.stream = stream
        self.readable = False
        self._data = b""
        self._greeter = greeter
        self._leave = leave

    def give_up(self) -> None:
        """No more bytes are waited for."""
        if self.stream.end is not self:
            return
        if self.stream.dead:
            # Only now: who opens and resets streams faster than this has them refused.
            self.stream.session.dismiss(self.stream)
        else:
            self.stream.end = None
            self.stream.put_back(self._data)
            self._leave(self.stream)

    def deliver(self, data: memoryview) -> int:
        self._data += bytes(data)
        answer = self._greeter(self.stream, self._data)
        if answer is False or (answer is None and len(self._data) > _MAX_BYTES):
            self.give_up()
        return len(data)

    def pull(self, space: memoryview) -> int:
        return 0

    def finished(self) -> None:
        self.give_up()

    def broken(self, why: str, *, received: bool) -> None:
        """Nobody knows of the stream yet."""
        self.stream.discard()
