"""A first-in first-out queue of bytes that neither copies much nor wastes memory."""

from __future__ import annotations

from collections import deque
from typing import Final

# Pieces below this are gathered, so that a peer that sends single bytes cannot make each
# of them cost an object; above it, an object's own 33 bytes no longer matter.
_SMALL: Final = 2048
_GATHERED: Final = 16 * 1024


class ByteQueue:
    """Bytes in the order they came. ``size`` (and ``len()``) is their number."""

    __slots__ = ("_chunks", "size")

    def __init__(self) -> None:
        # Made when it is needed: an empty deque has 600 bytes, and most streams never queue.
        self._chunks: deque[bytes | bytearray | memoryview] | None = None
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def append(self, data: bytes) -> None:
        """Add ``data`` at the end; it is kept, not copied, unless it is small."""
        if not data:
            return
        if self._chunks is None:
            self._chunks = deque()
        self.size += len(data)
        if len(data) >= _SMALL:
            self._chunks.append(data)
            return
        last = self._chunks[-1] if self._chunks else None
        if isinstance(last, bytearray) and len(last) < _GATHERED:
            last += data
        else:
            self._chunks.append(bytearray(data))

    def push_front(self, data: bytes) -> None:
        """Put ``data`` before everything else: it was taken too early."""
        if not data:
            return
        if self._chunks is None:
            self._chunks = deque()
        self.size += len(data)
        self._chunks.appendleft(data)

    def first(self) -> memoryview:
        """A view of the first chunk, empty when there is none. Release it before the next change."""
        return memoryview(self._chunks[0] if self._chunks else b"")

    def drop(self, count: int) -> None:
        """Forget the first ``count`` bytes, which are all in the first chunk."""
        if not count:
            return
        assert self._chunks is not None
        self.size -= count
        chunk = self._chunks[0]
        if count < len(chunk):
            self._chunks[0] = memoryview(chunk)[count:]
        else:
            self._chunks.popleft()
            if not self._chunks:
                self._chunks = None

    def pop_into(self, space: memoryview) -> int:
        """Move bytes into ``space``; how many that were."""
        filled = 0
        while filled < len(space) and self._chunks:
            chunk = self._chunks[0]
            size = min(len(chunk), len(space) - filled)
            space[filled : filled + size] = memoryview(chunk)[:size]
            filled += size
            self.drop(size)
        return filled

    def pop(self, limit: int) -> bytes:
        """The first chunk, or its first ``limit`` (> 0) bytes; b"" when empty."""
        if not self._chunks:
            return b""
        chunk = self._chunks[0]
        if len(chunk) <= limit:
            self._chunks.popleft()
        else:
            # A view: cutting a large chunk small by small must not copy its rest each time.
            view = memoryview(chunk)
            self._chunks[0] = view[limit:]
            chunk = view[:limit]
        self.size -= len(chunk)
        return bytes(chunk)

    def clear(self) -> None:
        """Forget everything."""
        self._chunks = None
        self.size = 0
