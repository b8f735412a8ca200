"""An egress proxy's listeners on the data plane's thread: a new connection goes out in the turn it came."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from ..transport.plane import Plane, Timer
from ..transport.session import NoStreamsError
from ..transport.socketend import abort
from ..transport.tunnel import Tunnel
from .counters import Counters
from .egressend import EgressEnd
from .header import Verdict

# Accepted in one pass of the loop; then others have their turn.
_AT_ONCE: Final = 16
_RETRY_SECONDS: Final = 0.2
_GONE_AT_MOST: Final = 3
# For the other node's first answer; its target may take longer.
ANSWER_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Calls:
    """What an acceptor asks of trio's side. ``tunnel`` is called here, on the data plane's thread, and only
    looks; the others are called there."""

    tunnel: Callable[[], Tunnel | None]
    connect: Callable[[], object]
    negotiate: Callable[[socket.socket, bytes], None]
    failed: Callable[[str], None]
    trouble: Callable[[str], None]
    full: Callable[[], None]
    idle: Callable[[], None]


class Acceptor:
    """``opening`` is sent before a connection's data. At most ``limit`` connections live; more wait in the
    kernel. All methods: the plane's thread."""

    def __init__(
        self,
        plane: Plane,
        sockets: list[socket.socket],
        opening: bytes,
        counters: Counters,
        limit: int,
        explain: Callable[[Verdict], str],
        calls: Calls,
    ) -> None:
        self.plane = plane
        self.counters = counters
        self.explain = explain
        self._sockets = sockets
        self._opening = opening
        self._limit = limit
        self._calls = calls
        self._live: set[EgressEnd] = set()
        # Accepted, and waiting for a connection to the peer.
        self._waiting: deque[socket.socket] = deque()
        # How often in a row it was gone again when it was to be used.
        self._gone = 0
        # Waiting for the connection to take one more stream.
        self._queued: set[socket.socket] = set()
        # Until when each must have been answered; the first is due first.
        self._unanswered: dict[EgressEnd, float] = {}
        self._timer: Timer | None = None
        # Accepted, and in trio's hands.
        self._lent = 0
        self._listening = False
        # Listeners on which accepting has failed.
        self._retrying: set[socket.socket] = set()
        self._closed = False

    def start(self) -> None:
        """Listen."""
        self._listening = True
        for listener in self._sockets:
            self.plane.watch(listener, partial(self._on_event, listener))

    def stop_listening(self) -> None:
        """Take no new connections; those that live go on, and ``idle`` is called when none is left."""
        if self._listening:
            self._listening = False
            self.counters.full_at = 0
            for listener in self._sockets:
                # Copies of it may live on, and be watched again: closing would not take it out of epoll.
                self.plane.unwatch(listener)
                listener.close()
        self._check_idle()

    def close(self) -> None:
        """Free the ports, then cut what lives: who sees the reset and tries again is refused."""
        self._closed = True
        self.stop_listening()
        while self._waiting:
            self._drop(self._waiting.popleft())
        while self._queued:
            self._drop(self._queued.pop())
        for end in list(self._live):
            end.cut(None)
        self._check_idle()

    # Accepting

    def _on_event(self, listener: socket.socket, events: int) -> None:
        self._accept(listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            if not self._listening:
                return
            if self.counters.connections >= self._limit:
                self.counters.filled(self._limit)
                self.plane.tell(self._calls.full)
                return
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self.plane.tell(self._calls.trouble, error.strerror or str(error))
                if listener not in self._retrying:
                    # Once, however many come meanwhile.
                    self._retrying.add(listener)
                    self.plane.after(_RETRY_SECONDS, partial(self._retry, listener))
                return
            self._begin(sock)
        # Edges tell of what comes later, not of what waits already.
        self.plane.call(self._accept, listener)

    def _retry(self, listener: socket.socket) -> None:
        self._retrying.discard(listener)
        self._accept(listener)

    def _begin(self, sock: socket.socket) -> None:
        self.counters.begin()
        sock.setblocking(False)
        self._open(sock)

    def _open(self, sock: socket.socket) -> None:
        tunnel = self._calls.tunnel()
        if tunnel is None or not tunnel.alive:
            self._waiting.append(sock)
            if len(self._waiting) == 1:
                self.plane.tell(self._calls.connect)
        elif tunnel.expects_data is False:
            self._lend(sock, b"")
        else:
            self._queued.add(sock)
            tunnel.session.when_openable(partial(self._join, tunnel, sock))

    def _join(self, tunnel: Tunnel, sock: socket.socket) -> None:
        if sock not in self._queued:
            return  # Cut meanwhile.
        self._queued.discard(sock)
        try:
            stream = tunnel.session.open()
        except NoStreamsError:
            # It ended while we waited; the next try finds another, or says why there is none.
            self._waiting.append(sock)
            if len(self._waiting) == 1:
                self.plane.tell(self._calls.connect)
            return
        stream.head = self._opening
        end = EgressEnd(self, tunnel, stream, sock, optimistic=True)
        self._live.add(end)
        self._unanswered[end] = time.monotonic() + ANSWER_SECONDS
        if self._timer is None:
            self._timer = self.plane.after(ANSWER_SECONDS, self._on_silence)
        end.start()

    def _on_silence(self) -> None:
        now = time.monotonic()
        while self._unanswered:
            end, due = next(iter(self._unanswered.items()))
            if due > now:
                self._timer = self.plane.after(due - now, self._on_silence)
                return
            del self._unanswered[end]
            end.cut("the other node does not answer")
        self._timer = None

    # What trio answers

    def connected(self) -> None:
        """There is a connection to the peer: let go on who waits for it."""
        waiting, self._waiting = self._waiting, deque()
        for sock in waiting:
            self._open(sock)
        self._gone = self._gone + 1 if self._waiting else 0
        if self._gone >= _GONE_AT_MOST:
            self._gone = 0
            self.unreachable("the connection to the other node ends as soon as it is made")

    def unreachable(self, why: str) -> None:
        """There is none: whoever waits must not wait longer."""
        while self._waiting:
            self._drop(self._waiting.popleft())
        self.plane.tell(self._calls.failed, why)

    def negotiated(self, end: EgressEnd) -> None:
        """A stream on which protocol and header were said, step by step."""
        self._lent -= 1
        assert end.stream is not None
        if self._closed or end.stream.dead:
            end.stream.reset()
            self._drop(end.sock)
            return
        end.tunnel.expects_data = False
        self._live.add(end)
        end.start()

    def not_negotiated(self, sock: socket.socket, why: str) -> None:
        """There is no such stream."""
        self._lent -= 1
        self._drop(sock)
        self.plane.tell(self._calls.failed, why)

    # What the ends say

    def answered(self, end: EgressEnd) -> None:
        """The other node has said its first word."""
        self._unanswered.pop(end, None)

    def again(self, end: EgressEnd, early: bytes) -> None:
        """The peer did not expect data so early."""
        self._live.discard(end)
        self._unanswered.pop(end, None)
        if self._closed:
            self._drop(end.sock)
        else:
            self._lend(end.sock, early)

    def ended(self, end: EgressEnd, why: str | None) -> None:
        """A connection is over."""
        self._live.discard(end)
        self._unanswered.pop(end, None)
        if why is not None:
            self.plane.tell(self._calls.failed, why)
        self._count_end()

    def _lend(self, sock: socket.socket, early: bytes) -> None:
        self._lent += 1
        self.plane.tell(self._calls.negotiate, sock, early)

    def _drop(self, sock: socket.socket) -> None:
        abort(sock)
        self._count_end()

    def _count_end(self) -> None:
        self.counters.end()
        if self.counters.full_at and self._listening:
            self.counters.full_at = 0
            for listener in self._sockets:
                self.plane.call(self._accept, listener)
        self._check_idle()

    def _check_idle(self) -> None:
        if not (self._listening or self._live or self._waiting or self._queued or self._lent):
            self.plane.tell(self._calls.idle)
