"""The end of a stream that trio's tasks read and write: the data plane's half of a MuxedStream.

The two halves share nothing: each call crosses by ``Plane.call`` or ``Plane.tell``, in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .bytequeue import ByteQueue
from .stream import EOF

if TYPE_CHECKING:
    from .muxstream import MuxedStream
    from .plane import Plane
    from .stream import Stream

# What is handed to trio at once, and what trio may have waiting here.
PIECE_BYTES: Final = 64 * 1024
# Trio is told of what has left in steps of so much: it may have PIECE_BYTES on the way.
_TOLD_BYTES: Final = 16 * 1024


class Mailbox:
    """Made by the muxer with its MuxedStream. All methods but the constructor: the plane's thread."""

    __slots__ = (
        "_closing",
        "_face",
        "_finishing",
        "_given",
        "_out",
        "_pieces",
        "_plane",
        "_untold",
        "stream",
    )

    def __init__(self, plane: Plane, face: MuxedStream) -> None:
        self.stream: Stream | None = None
        self._plane = plane
        self._face = face
        self._out = ByteQueue()
        self._untold = 0
        # What trio was given and has not read, b"" for nothing; and how often it was given something.
        self._given = b""
        self._pieces = 0
        self._finishing = False
        self._closing = False

    # From trio's half

    def push(self, data: bytes) -> None:
        """Send bytes."""
        if self.stream is not None and not self.stream.dead:
            self._out.append(data)
            self.stream.ready()

    def more(self) -> None:
        """Trio has read what it was given."""
        self._given = b""
        if self.stream is not None:
            self.stream.drain()

    def finish(self) -> None:
        """Half-close behind what is queued."""
        self._finishing = True
        if self.stream is not None:
            self.stream.ready()

    def close(self) -> None:
        """Close both directions; what is queued is still sent."""
        self._closing = True
        self.finish()
        if self.stream is not None:
            self.stream.session.close(self.stream)

    def reset(self) -> None:
        """End it now."""
        self._out.clear()
        if self.stream is not None:
            self.stream.reset()

    def take_over(self, pieces: int, unread: bytes) -> bytes:
        """Give the stream up for another end, and back what trio has not read; what was still to be sent.

        ``pieces``: how many trio has got; one may be on its way to it.
        """
        assert self.stream is not None
        self.stream.put_back(unread if pieces == self._pieces else self._given)
        out = bytearray(len(self._out))
        with memoryview(out) as space:
            self._out.pop_into(space)
        return bytes(out)

    # From the stream

    @property
    def readable(self) -> bool:
        return len(self._out) > 0 or self._finishing

    def deliver(self, data: memoryview) -> int:
        if self._closing:
            return len(data)
        if self._given:
            return 0
        piece = self._given = bytes(data[:PIECE_BYTES])
        self._pieces += 1
        self._plane.tell(self._face.on_piece, piece)
        return len(piece)

    def pull(self, space: memoryview) -> int:
        size = self._out.pop_into(space)
        if not size:
            return EOF if self._finishing else 0
        self._untold += size
        if self._untold >= _TOLD_BYTES:
            self._plane.tell(self._face.on_sent, self._untold)
            self._untold = 0
        return size

    def finished(self) -> None:
        self._plane.tell(self._face.on_fin)

    def broken(self, why: str, *, received: bool) -> None:
        self._plane.tell(self._face.on_broken, why, received)
