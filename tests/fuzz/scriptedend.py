"""The end of a stream whose every word and deed a script decides."""

from __future__ import annotations

from collections.abc import Callable

from hived.transport.stream import EOF, Stream


class ScriptedEnd:
    """An end that takes and gives so many bytes. ``deed``: what it does when it is called by the stream."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.takes = self.gives = self.taken = 0
        self.ended = False
        self.deed: tuple[str, Callable[[], None]] | None = None
        self.finishes = self.breaks = 0
        # Broken before the peer's end: nothing more comes.
        self.cut = False

    @property
    def readable(self) -> bool:
        return bool(self.gives) or self.ended

    def deliver(self, data: memoryview) -> int:
        assert not self.cut, "bytes for an end that was cut off"
        assert not self.finishes, "bytes behind the end"
        size = min(len(data), self.takes)
        if self._does("deliver"):
            # Whether it has taken them does not matter any more.
            return size if size & 1 else 0
        self.takes -= size
        self.taken += size
        return size

    def pull(self, space: memoryview) -> int:
        if self._does("pull"):
            return 0
        size = min(len(space), self.gives)
        self.gives -= size
        return size or (EOF if self.ended else 0)

    def finished(self) -> None:
        assert not self.finishes
        self.finishes += 1
        self._does("finished")

    def broken(self, why: str, *, received: bool) -> None:
        assert not self.breaks, "it breaks twice"
        self.breaks += 1
        self.cut = not received
        if not self._does("broken") and not received and self.stream is not None:
            assert not self.stream.inbox.buffered, "what was reset is not to be read"

    def _does(self, when: str) -> bool:
        if self.deed is None or self.deed[0] != when:
            return False
        deed, self.deed = self.deed[1], None
        deed()
        return True
