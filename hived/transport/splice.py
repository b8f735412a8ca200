"""Two streams joined inside the data plane: what a relay does with a circuit's halves."""

from __future__ import annotations

from collections.abc import Callable

from .socketend import Traffic
from .stream import EOF, Stream


class Splice:
    """The end of ``stream``, whose bytes go to ``other``'s and the other way round.

    A byte is taken from a stream only when the other can send it, so a stalled reader stalls its writer
    and nothing grows. Ends pass each for itself; a reset of one resets the other.
    """

    __slots__ = ("_ended", "_joint", "_traffic", "other", "stream")

    def __init__(self, stream: Stream, traffic: Traffic, joint: Callable[[str | None], None]) -> None:
        self.stream = stream
        self.other: Splice = self
        self._traffic = traffic
        self._joint = joint
        self._ended = False

    @property
    def readable(self) -> bool:
        source = self.other.stream
        return bool(source.inbox.buffered) or source.got_fin

    def deliver(self, data: memoryview) -> int:
        self.other.stream.ready()
        return 0

    def pull(self, space: memoryview) -> int:
        source = self.other.stream
        size = source.take_into(space)
        if size:
            self._traffic.bytes_out += size
            return size
        if not source.got_fin:
            return 0
        self._ended = True
        if self.other._ended:
            self._joint(None)
        return EOF

    def finished(self) -> None:
        self.other.stream.ready()

    def broken(self, why: str, *, received: bool) -> None:
        self.stream.discard()
        self.other.stream.reset()
        self._joint(why)


def splice(
    one: Stream, other: Stream, traffic: Traffic, reverse: Traffic, ended: Callable[[str | None], None]
) -> None:
    """Join two streams; ``ended`` is called once or more, with why it broke or None. Plane's thread.

    ``traffic`` counts what leaves on ``one`` as out, ``reverse`` what leaves on ``other``.
    """
    first, second = Splice(one, traffic, ended), Splice(other, reverse, ended)
    first.other, second.other = second, first
    one.attach(first)
    other.attach(second)
