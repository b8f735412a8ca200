"""One connection of an egress proxy on the data plane's thread: a client's socket and its stream."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from ..overlay.wire import ProtocolError
from ..transport.socketend import LOCAL_RESET, SocketEnd
from ..transport.stream import Stream
from ..transport.tunnel import Tunnel
from .header import ANSWER, Verdict, parse_verdict

if TYPE_CHECKING:
    from .acceptor import Acceptor

# What is sent before ingress has answered, and kept for another try: as TCP's first flight and some.
EARLY_BYTES: Final = 64 * 1024


class EgressEnd(SocketEnd):
    """``optimistic``: protocol, header and data went out at once, and the answer to all of them comes first;
    else only the verdict does."""

    __slots__ = ("_acceptor", "_answer", "_early", "_expected", "tunnel")

    def __init__(
        self, acceptor: Acceptor, tunnel: Tunnel, stream: Stream, sock: socket.socket, *, optimistic: bool
    ) -> None:
        super().__init__(acceptor.plane, stream, sock, acceptor.counters)
        self.tunnel = tunnel
        self._acceptor = acceptor
        self._answer = b""
        # None once the verdict has come.
        self._expected: bytes | None = ANSWER if optimistic else b""
        # What was sent, while the peer may not have expected it.
        self._early: bytearray | None = bytearray() if optimistic and not tunnel.expects_data else None

    def ended(self, why: str | None) -> None:
        # Once it was open, a reset is between client and target; before, it is ours to explain.
        ours = self._expected is not None and why is not LOCAL_RESET
        self._acceptor.ended(self, why if ours else None)

    def pull(self, space: memoryview) -> int:
        early = self._early
        if early is None:
            return super().pull(space)
        room = EARLY_BYTES - len(early)
        if room <= 0:
            self.readable = False
            return 0
        size = super().pull(space[:room])
        if size > 0:
            early += space[:size]
        return size

    def deliver(self, data: memoryview) -> int:
        if self._expected is None:
            return super().deliver(data)
        # Counted from the front: byte by byte answers are somebody's test of us, never fast.
        had = len(self._answer)
        wanted = len(self._expected) + 1
        self._answer += bytes(data[: wanted - had])
        used = len(self._answer) - had
        if not self._expected.startswith(self._answer[: len(self._expected)]):
            self._not_expected("the other node does not speak this proxy's protocol")
            return len(data)
        if len(self._answer) >= len(self._expected):
            self._acceptor.answered(self)
        if len(self._answer) < wanted:
            return used
        try:
            verdict = parse_verdict(self._answer[-1])
        except ProtocolError as error:
            self.cut(str(error))
            return len(data)
        if verdict is not Verdict.OPEN:
            self.cut(self._acceptor.explain(verdict))
            return len(data)
        self._opened()
        return used + super().deliver(data[used:]) if used < len(data) else used

    def _opened(self) -> None:
        if self._expected:
            self.tunnel.expects_data = True
        self._expected = None
        self._answer = b""
        self._acceptor.counters.last_error = None
        if self._early is not None:
            self._early = None
            self.readable = True
            assert self.stream is not None
            self.stream.ready()

    def _not_expected(self, why: str) -> None:
        """The peer answers something else: once more, and one step at a time."""
        if self._early is None or self.stream is None:
            self.cut(why)
            return
        self.closed = True
        self.readable = False
        self.plane.unwatch(self.sock)
        self.stream.reset()
        self._acceptor.again(self, bytes(self._early))

    def broken(self, why: str, *, received: bool) -> None:
        if not self.closed and self._early is not None and self.tunnel.alive:
            self._not_expected(why)
        else:
            super().broken(why, received=received)

    def finished(self) -> None:
        if self._expected is not None:
            # An end in place of an answer.
            self._not_expected("the other node ended the connection before it was open")
        else:
            super().finished()
