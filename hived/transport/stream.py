"""One stream of a connection, on the data plane's thread; and what may be at its end.

A stream has the protocol's state: windows, who has ended. Where its bytes come from and go to is
its *end*: a mailbox that trio's tasks use (``mailbox``), a joined socket (``socketend``), another
stream (``splice``) or a connection that runs inside it (``carrier``).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

from ..logs import Log
from .frames import INITIAL_WINDOW, MAX_LENGTH
from .inbox import Inbox
from .outbox import QUANTUM

if TYPE_CHECKING:
    from .session import Session

log = Log("hived.transport.stream")

# What ``End.pull`` gives for the end of its bytes.
EOF: Final = -1


class End(Protocol):
    """What takes a stream's bytes and gives it its own. Called on the data plane's thread only.

    ``readable``: ``pull`` would give something, as far as it knows.
    """

    @property
    def readable(self) -> bool: ...

    def deliver(self, data: memoryview) -> int:
        """Take bytes, as many as it can without waiting; how many. Copies what it keeps.

        What is not taken is kept by the stream until the end calls ``Stream.drain``.
        """

    def pull(self, space: memoryview) -> int:
        """Put bytes into ``space``; how many, 0 for none now (``Stream.ready`` later), or EOF."""

    def finished(self) -> None:
        """The peer has ended its side, and all that it sent was taken."""

    def broken(self, why: str, *, received: bool) -> None:
        """The stream was reset, or its connection lost. ``received``: all of the peer's side had come.

        What of it waits is then the end's to take, or to ``discard``.
        """


class Stream:
    """Protocol state of one stream. ``head``: bytes that go before all that the end will give."""

    __slots__ = (
        "bulk",
        "closing",
        "control_credit",
        "control_flags",
        "dead",
        "end",
        "eof",
        "got_fin",
        "head",
        "id",
        "inbox",
        "queued",
        "quota",
        "send_window",
        "sent_fin",
        "session",
        "told_fin",
    )

    def __init__(self, stream_id: int, session: Session) -> None:
        self.id = stream_id
        self.session = session
        self.inbox = Inbox(time.monotonic())
        self.end: End | None = None
        self.head = b""
        # The end came to its own while ``head`` was sent.
        self.eof = False
        self.send_window = INITIAL_WINDOW
        self.got_fin = self.sent_fin = self.told_fin = False
        # Off the connection's table: nothing more is sent or received.
        self.dead = False
        # Nobody reads it any more; what is still to be sent is.
        self.closing = False
        # The outbox's: waiting there, how long the last record was, bytes until the next one's turn.
        self.queued = self.bulk = False
        self.quota = QUANTUM
        self.control_flags = self.control_credit = 0

    def __repr__(self) -> str:
        return f"<Stream {self.id}>"

    # For the end

    def attach(self, end: End) -> None:
        """From now on this is the stream's end; it gets what has come already."""
        self.end = end
        # An earlier end may have heard of it.
        self.told_fin = False
        self.drain()
        self.ready()

    def ready(self) -> None:
        """The end has bytes to send, or has come to its end: it will be asked."""
        if not (self.queued or self.sent_fin or self.dead) and self.send_window > 0:
            self.session.outbox.ready(self)

    def ready_now(self) -> None:
        """As ``ready``, from the loop itself: where nothing waits before it, a short message goes at once."""
        if not (self.queued or self.sent_fin or self.dead) and self.send_window > 0:
            session = self.session
            if self.bulk or not session.send_now(self):
                session.outbox.ready(self)

    def drain(self) -> None:
        """The end can take bytes again: give it what has waited."""
        inbox = self.inbox
        while inbox.buffered and self.end is not None:
            with inbox.first() as view:
                taken = self.end.deliver(view)
                all_taken = taken == len(view)
            if not inbox.buffered:
                return  # The end has reset or closed the stream.
            inbox.drop(taken)
            self.session.hold(-taken)
            if not all_taken:
                break
        self._after_taking()

    def take_into(self, space: memoryview) -> int:
        """What has waited, for an end that asks instead of being given; how many bytes."""
        taken = self.inbox.get_into(space)
        self.session.hold(-taken)
        self._after_taking()
        return taken

    def _after_taking(self) -> None:
        self.give_credit()
        if self.got_fin and not self.told_fin and not self.inbox.buffered and self.end is not None:
            self.told_fin = True
            self.end.finished()

    def put_back(self, data: bytes) -> None:
        """Bytes that an earlier end was given and has not used."""
        self.inbox.put_back(data)
        self.session.hold(len(data))

    def give_credit(self) -> None:
        """Tell the peer of the room that reading has made, when that is worth a frame."""
        inbox = self.inbox
        if inbox.worth_credit and not self.got_fin and not self.dead:
            session = self.session
            if session.budget.pressed:
                session.shrunk(inbox.shrink())
            credit = inbox.credit(time.monotonic(), session.rtt, session.may_grow)
            if credit:
                session.outbox.control(self, credit=credit)

    def reset(self) -> None:
        """End the stream abruptly; the end knows."""
        self.discard()
        self.session.reset(self)

    def discard(self) -> None:
        """Forget what has come and was not taken."""
        self.session.hold(-self.inbox.buffered)
        self.inbox.clear()

    # For the connection

    @property
    def has_more(self) -> bool:
        """There is more to send at once."""
        more = self.head or self.eof or (self.end is not None and self.end.readable)
        return bool(more) and self.send_window > 0

    def fill(self, space: memoryview) -> int:
        """Bytes for the next record; 0 for none, EOF when the end has come to its own."""
        if not self.head:
            if self.eof:
                return EOF
            return self.end.pull(space) if self.end is not None else 0
        size = min(len(self.head), len(space))
        space[:size] = self.head[:size]
        self.head = self.head[size:]
        if self.end is not None and size < len(space) and not self.head:
            # In the same record: what opens a stream and its first data cost one packet.
            more = self.end.pull(space[size:])
            self.eof = more == EOF
            size += max(0, more)
        return size

    def on_data(self, length: int, payload: bytes | memoryview) -> None:
        """Part of a frame that takes ``length`` from the window. Raises ProtocolError on an overrun."""
        inbox, end = self.inbox, self.end
        inbox.announce(length)
        taken = 0
        if end is not None and not inbox.queue.size:
            try:
                taken = end.deliver(payload if isinstance(payload, memoryview) else memoryview(payload))
            except Exception:
                self._crashed()
                return
            inbox.uncredited += taken
        if taken < len(payload):
            self._keep(payload[taken:])
        if inbox.uncredited >= inbox.window >> 2:
            self.give_credit()

    def _crashed(self) -> None:
        """A defect in an end is that stream's end, not the connection's."""
        log.exception("a defect in the handling of a stream; please report it")
        self.session.reset(self)
        self.on_reset("internal error")

    def _keep(self, rest: bytes | memoryview) -> None:
        """What the end does not take now."""
        if self.dead or self.closing:
            return
        session = self.session
        if not session.may_hold(len(rest)):
            session.reset(self)
            self.on_reset("too much waits for readers")
            return
        self.inbox.put(bytes(rest))
        session.hold(len(rest))

    def on_credit(self, credit: int) -> None:
        """The peer takes ``credit`` bytes more."""
        blocked = self.send_window <= 0
        self.send_window = min(self.send_window + credit, MAX_LENGTH)
        if blocked:
            self.ready()

    def on_fin(self) -> None:
        """The peer has ended its side."""
        self.got_fin = True
        self._after_taking()

    def on_reset(self, why: str = "the peer reset the stream") -> None:
        """RST came, or the peer's frames make no sense on this stream."""
        self.discard()
        # Of a side that was cut off there is no end to tell, whatever came before.
        self.told_fin = True
        if self.end is not None:
            self.end.broken(why, received=False)

    def on_connection_lost(self, why: str) -> None:
        """The connection is over. What ended with FIN stays readable."""
        received = self.got_fin
        if not received:
            self.discard()
        if self.end is not None:
            self.end.broken(why, received=received)
