"""Streams that the application is done with and the peer perhaps is not.

A frame for such a stream was either on its way before the peer knew, or the peer goes on
sending to nobody and has to be told.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from .frames import DATA, FIN, RST, Frame

if TYPE_CHECKING:
    from .outbox import Outbox
    from .stream import Stream

# Of so many ended streams the IDs are kept, to tell late frames from wrong ones.
RECENT: Final = 1024


class Departed:
    """Lingering streams, on which our FIN is sent or queued and the peer's has not come, and
    the IDs of those that have ended lately. Both are bounded."""

    def __init__(self, outbox: Outbox, max_lingering: int) -> None:
        self._outbox = outbox
        self._max_lingering = max_lingering
        self._lingering: OrderedDict[int, Stream] = OrderedDict()
        self._recent: OrderedDict[int, None] = OrderedDict()

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self._lingering or stream_id in self._recent

    @property
    def lingering(self) -> int:
        """How many streams wait for the peer's end."""
        return len(self._lingering)

    def remember(self, stream_id: int) -> None:
        """The stream has ended on both sides."""
        self._recent[stream_id] = None
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)

    def linger(self, stream: Stream) -> Iterator[int]:
        """Wait for the peer's end; the IDs of those that are reset to make room."""
        self._lingering[stream.id] = stream
        if credit := stream.inbox.top_up():
            self._outbox.control(stream, credit=credit)
        while len(self._lingering) > self._max_lingering:
            stream_id, oldest = self._lingering.popitem(last=False)
            self._reset(oldest)
            yield stream_id

    def give_up(self, stream_id: int) -> None:
        """Reset a stream that waits for the peer's end, if this is one."""
        stream = self._lingering.pop(stream_id, None)
        if stream is not None:
            self._reset(stream)

    def on_frame(self, frame: Frame) -> bool:
        """Whether the frame is for one of these. Raises ProtocolError on an overrun."""
        stream = self._lingering.get(frame.stream_id)
        if stream is None:
            return frame.stream_id in self._recent
        if frame.kind == DATA:
            stream.inbox.announce(frame.length)
        if frame.flags & RST:
            self._outbox.drop(stream)
        if frame.flags & (FIN | RST):
            del self._lingering[stream.id]
            self.remember(stream.id)
        elif frame.kind == DATA and stream.inbox.allowed < stream.inbox.window // 2:
            # So much can have been on its way before the peer knew, and RST for that could
            # destroy our last words in its hands. This peer has more to say.
            del self._lingering[stream.id]
            self._reset(stream)
        return True

    def _reset(self, stream: Stream) -> None:
        self._outbox.reset(stream.id, stream)
        self.remember(stream.id)
