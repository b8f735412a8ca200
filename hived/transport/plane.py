"""The data plane's thread: one edge-triggered epoll loop that moves all the bytes.

Tunnels, streams and joined sockets live on this thread alone and are touched by no other; trio's
thread and this one tell each other things in order: ``call`` from there to here, ``tell``
from here to there. So nothing here has a lock, and a proxied byte crosses no trio task.

Why a thread, and why epoll by hand: findings/data-plane.md; nested in trio an echo took twice as long.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from ..logs import Log
from .budget import Budget
from .frames import HEADER_BYTES
from .limits import RECEIVE_BYTES
from .records import MAX_RECORD_BYTES

if TYPE_CHECKING:
    from .tunnel import Tunnel

log = Log("hived.transport.plane")

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
ERR: Final = select.EPOLLERR
HUP: Final = select.EPOLLHUP
RDHUP: Final = select.EPOLLRDHUP
# Registered once for everything and never changed: an event is an edge, and costs one call.
_EVENTS: Final = IN | OUT | RDHUP | select.EPOLLET
_MAX_EVENTS: Final = 64
_MAX_TOLD: Final = 256
_MIN_TIMERS: Final = 1024
# In front of a record's payload: room for control frames that go with it.
HEAD_BYTES: Final = 4096


class Socket(Protocol):
    """What the loop needs of what it watches."""

    def fileno(self) -> int: ...


class Timer:
    """A call that is due later. ``cancel`` may come at any time, twice too."""

    __slots__ = ("cancelled", "function")

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        # It stays until it is due; what it would have called need not.
        self.function = _nothing


def _nothing() -> None:
    pass


class Plane:
    """The loop. ``planethread`` starts and ends its thread; the rest of trio's thread uses only ``call``.

    ``turns`` counts passes of the loop: it stands still when the thread hangs. ``crowded``: several things
    have happened at once, and who gathers them spends less on each.
    """

    def __init__(self) -> None:
        self.budget = Budget()
        self.turns = 0
        self.crowded = False
        # Shared by all tunnels: each is used within one call only.
        self.stage = memoryview(bytearray(HEAD_BYTES + MAX_RECORD_BYTES))
        self.out = memoryview(bytearray(HEAD_BYTES + MAX_RECORD_BYTES + HEADER_BYTES))
        self.plain = memoryview(bytearray(MAX_RECORD_BYTES))
        self.scratch = memoryview(bytearray(RECEIVE_BYTES))
        self._spare: list[memoryview] = []
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, IN)
        self._handlers[self._wake] = self._woken
        self._fresh: set[int] = set()
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._signalled = False
        self._told: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._token: trio.lowlevel.TrioToken | None = None
        self._timers: list[tuple[float, int, Timer]] = []
        self._due = False
        self._compact_at = _MIN_TIMERS
        self._numbers = itertools.count()
        self._active: list[Tunnel] = []
        self._running = True
        self._over = False

    # From trio's thread

    def begin(self, token: trio.lowlevel.TrioToken) -> None:
        """Before the loop's thread starts: ``tell`` reaches trio by this."""
        self._token = token

    def close(self) -> None:
        """The loop's thread has ended; what it still had to tell is told."""
        self._over = True
        self._epoll.close()
        os.close(self._wake)
        while self._told:
            self._deliver_told()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function on the loop's thread, soon and in order. From any thread."""
        self._calls.append((function, arguments))
        if not self._signalled and not self._over:
            self._signalled = True
            with contextlib.suppress(OSError):
                os.eventfd_write(self._wake, 1)

    # On the loop's thread

    def soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function in the next pass of the loop, when what is being handled now is done."""
        self._calls.append((function, arguments))

    def tell(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function on trio's thread, soon and in order."""
        self._told.append((function, arguments))

    def watch(self, sock: Socket, handler: Callable[[int], None]) -> None:
        """Call ``handler`` with each edge of a socket's events, the first one soon."""
        fd = sock.fileno()
        self._handlers[fd] = handler
        self._epoll.register(fd, _EVENTS)
        # What this pass still has for the number is about a socket that was closed in it.
        self._fresh.add(fd)

    def rewatch(self, sock: Socket, handler: Callable[[int], None]) -> None:
        """Another handler for a socket that is watched; edges that the one before had do not come again."""
        self._handlers[sock.fileno()] = handler

    def unwatch(self, sock: Socket) -> None:
        """Watch it no more; it lives on."""
        fd = sock.fileno()
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def forget(self, sock: Socket) -> None:
        """Just before a socket is closed, which takes it out of epoll by itself."""
        self._handlers.pop(sock.fileno(), None)

    def after(self, seconds: float, function: Callable[[], None]) -> Timer:
        """Call a function in so many seconds, unless its timer is cancelled."""
        timer = Timer(function)
        if len(self._timers) > self._compact_at:
            # Most are cancelled long before they are due: a connection's time limits.
            self._timers = [entry for entry in self._timers if not entry[2].cancelled]
            heapq.heapify(self._timers)
            self._compact_at = max(_MIN_TIMERS, 2 * len(self._timers))
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), timer))
        return timer

    def activate(self, tunnel: Tunnel) -> None:
        """Give a tunnel a turn in this pass of the loop, or in the next."""
        self._active.append(tunnel)

    def borrow(self) -> memoryview:
        """A buffer of RECEIVE_BYTES for who has part of a record, and gives it back when that is whole."""
        return self._spare.pop() if self._spare else memoryview(bytearray(RECEIVE_BYTES))

    def give_back(self, buffer: memoryview) -> None:
        """A buffer that is empty again."""
        if len(self._spare) < 4:
            self._spare.append(buffer)

    def loop(self) -> None:
        """Run until ``stop``, on the thread that is the data plane's from now on."""
        poll, handlers, calls, fresh = self._epoll.poll, self._handlers, self._calls, self._fresh
        while self._running:
            self.turns += 1
            handler: Callable[[int], None] | None = None
            events = poll(self._pause() if self._timers else self._idle(), _MAX_EVENTS)
            self.crowded = len(events) > 1
            happened = iter(events)
            while True:
                try:
                    for fd, what in happened:
                        handler = handlers.get(fd)
                        if handler is not None and fd not in fresh:
                            handler(what)
                    break
                except Exception:
                    self._crashed(handler)
            for _ in range(len(calls)):
                function, arguments = calls.popleft()
                self._guard(function, *arguments)
            if self._due:
                # Behind what has come meanwhile: silence is judged by it.
                self._run_timers()
            if self._active:
                active, self._active = self._active, []
                for tunnel in active:
                    self._guard(tunnel.turn)
            if self._told:
                self._schedule_told()
            if fresh:
                fresh.clear()

    def _idle(self) -> float:
        return 0.0 if self._active or self._calls else -1.0

    def _pause(self) -> float:
        """Seconds until a timer is due; 0 when something is to be done at once, -1 when nothing is."""
        now = time.monotonic()
        while self._timers:
            due, _, timer = self._timers[0]
            if timer.cancelled:
                heapq.heappop(self._timers)
            elif due <= now:
                self._due = True
                return 0.0
            else:
                return self._idle() and due - now
        return self._idle()

    def _run_timers(self) -> None:
        self._due = False
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled:
                self._guard(timer.function)

    def _guard(self, function: Callable[..., object], *arguments: Any) -> None:
        """A defect in the handling of one connection must not end all the others."""
        try:
            function(*arguments)
        except Exception:
            self._crashed(function)

    def _crashed(self, function: object) -> None:
        log.exception("a defect in the data plane; please report it")
        crashed = getattr(getattr(function, "__self__", None), "crashed", None)
        if crashed is not None:
            try:
                crashed()
            except Exception:
                log.exception("a defect in the data plane; please report it")

    def _woken(self, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        # Last: who called before is served in this pass, who calls from now on wakes us again.
        self._signalled = False

    def stop(self) -> None:
        """End the loop with this pass."""
        self._running = False

    def _schedule_told(self) -> None:
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._deliver_told, idempotent=True)

    def _deliver_told(self) -> None:
        """On trio's thread."""
        for _ in range(min(len(self._told), _MAX_TOLD)):
            function, arguments = self._told.popleft()
            try:
                function(*arguments)
            except Exception:
                log.exception("a defect at the border of the data plane; please report it")
        if self._told:
            # The tasks of trio have their turn between.
            self._schedule_told()
