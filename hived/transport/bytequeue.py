"""A first-in first-out queue of bytes that neither copies much nor wastes memory."""

from __future__ import annotations

from collections import deque

# Pieces below this are gathered, so that a peer that sends single bytes cannot make each
# of them cost an object; above it, an object's own 33 bytes no longer matter.
_SMALL = 2048
_GATHERED = 16 * 1024


class ByteQueue:
    """Bytes in the order they came. ``len()`` is their number."""

    __slots__ = ("_chunks", "_size")

    def __init__(self) -> None:
        self._chunks: deque[bytes | bytearray | memoryview] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, data: bytes) -> None:
        """Add ``data`` at the end; it is kept, not copied, unless it is small."""
        if not data:
            return
        self._size += len(data)
        if len(data) >= _SMALL:
            self._chunks.append(data)
            return
        last = self._chunks[-1] if self._chunks else None
        if isinstance(last, bytearray) and len(last) < _GATHERED:
            last += data
        else:
            self._chunks.append(bytearray(data))

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
        self._size -= len(chunk)
        return bytes(chunk)

    def clear(self) -> None:
        """Forget everything."""
        self._chunks.clear()
        self._size = 0
