"""HTTP/1.1 over any byte stream, by h11: one connection, requests in turn.

Bodies, headers and waiting are bounded, so that a silent, slow or greedy client costs
little and is dropped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

import h11
import msgspec
import trio

from ..errors import HiveError, Kind
from ..schema import Problem

MAX_BODY = 256 * 1024
_DISCARD_BYTES = 1024 * 1024
_DISCARD_SECONDS = 1.0
MAX_HEADERS = 16 * 1024
REQUEST_SECONDS = 10.0
IDLE_SECONDS = 75.0
# The slowest that a body larger than MAX_BODY may come.
MIN_BYTES_PER_SECOND = 1024 * 1024
SEND_SECONDS = 30.0
_CHUNK = 16 * 1024
_SEND_CHUNK = 256 * 1024
_JSON = msgspec.json.Encoder()
_REASONS = {
    101: b"Switching Protocols",
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    409: b"Conflict",
    413: b"Content Too Large",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
}


class ClientGoneError(Exception):
    """The client closed, broke the protocol, or was too slow; there is nobody to answer."""


@dataclass(frozen=True)
class Request:
    """``target`` is the raw path with query, ``headers`` have lower-case names."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class HttpConnection:
    """The server's side of one connection.

    ``larger`` is asked how large the body of a request may be that announces more than MAX_BODY.
    """

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        larger: Callable[[Request], Awaitable[int]] | None = None,
    ) -> None:
        self.stream = stream
        self._larger = larger
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADERS)

    async def receive(self) -> Request | None:
        """The next request; None when the client is done.

        Raises ClientGoneError, or HiveError to answer with.
        """
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        elif self._h11.our_state is not h11.IDLE:
            return None
        try:
            with trio.fail_after(IDLE_SECONDS):
                # Idle is allowed for long; once a request has begun, its end must follow soon.
                while not self._h11.trailing_data[0] and self._h11.their_state is h11.IDLE:
                    data = await self._read()
                    self._h11.receive_data(data)
                    if not data:
                        return None
            with trio.fail_after(REQUEST_SECONDS) as scope:
                return await self._request(scope)
        except trio.TooSlowError:
            raise ClientGoneError("too slow") from None
        except h11.RemoteProtocolError as error:
            if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                raise HiveError(
                    Kind.USAGE, "reading the request failed", str(error), "Send HTTP/1.1"
                ) from None
            raise ClientGoneError(str(error)) from None

    async def _request(self, scope: trio.CancelScope) -> Request | None:
        head: Request | None = None
        body = bytearray()
        most = MAX_BODY
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue:
                    await self._send(h11.InformationalResponse(status_code=100, headers=[]))
                self._h11.receive_data(await self._read())
            elif isinstance(event, h11.Request):
                headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
                head = Request(event.method.decode("ascii"), event.target.decode("ascii"), headers, b"")
                announced = headers.get("content-length", "")
                if self._larger is not None and announced.isdecimal() and int(announced[:18]) > MAX_BODY:
                    most = await self._larger(head)
                    scope.deadline = trio.current_time() + REQUEST_SECONDS + most / MIN_BYTES_PER_SECOND
                    if int(announced[:18]) > most:
                        await self._discard(int(announced[:18]))
                        raise _too_large(most)
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > most:
                    raise _too_large(most)
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return replace(head, body=bytes(body))
            else:
                return None

    async def _discard(self, announced: int) -> None:
        """Read a little of a body that is too large: who still writes into a closed socket never sees why."""
        left = min(announced, _DISCARD_BYTES)
        with trio.move_on_after(_DISCARD_SECONDS):
            while left > 0:
                left -= len(await self._read() or b"x" * left)

    async def answer(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        """One whole answer."""
        await self.begin(status, [("Content-Type", content_type), ("Content-Length", str(len(body)))])
        # In parts: to each its own time.
        for start in range(0, len(body), _SEND_CHUNK):
            await self._send(h11.Data(data=body[start : start + _SEND_CHUNK]))
        await self._send(h11.EndOfMessage())

    async def refuse(self, error: HiveError) -> None:
        """Answer with a failure (RFC 9457). Raises ClientGoneError."""
        try:
            await self.answer(error.kind.status, problem_document(error), "application/problem+json")
        except Exception as failure:
            # The answer had begun, or h11 holds the connection for broken: only closing is left.
            raise ClientGoneError(str(failure)) from failure

    async def begin(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """The head of an answer; ``Connection: close`` when the request was not read to its end."""
        extra = [] if self._h11.their_state is h11.DONE else [("Connection", "close")]
        await self._send(
            h11.Response(status_code=status, reason=_REASONS.get(status, b""), headers=[*headers, *extra])
        )

    async def send_line(self, body: bytes) -> None:
        """A part of an answer begun without a length."""
        await self._send(h11.Data(data=body + b"\n"))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def switch(self, headers: Iterable[tuple[str, str]]) -> bytes:
        """Answer 101; what the client has sent beyond its request already."""
        await self._send(
            h11.InformationalResponse(status_code=101, reason=_REASONS[101], headers=list(headers))
        )
        return bytes(self._h11.trailing_data[0])

    async def wait_closed(self) -> None:
        """Until the client closes; what it still sends is dropped."""
        try:
            while await self.stream.receive_some(_CHUNK):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _read(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(_CHUNK))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ClientGoneError(str(error)) from error

    async def _send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if not data:
            return
        try:
            with trio.fail_after(SEND_SECONDS):
                await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            raise ClientGoneError(str(error)) from error


def problem_document(error: HiveError) -> bytes:
    """A failure as a JSON document (RFC 9457)."""
    return _JSON.encode(
        Problem(
            title=error.what,
            status=error.kind.status,
            detail=error.why,
            hint=error.hint,
            kind=error.kind.wire,
        )
    )


def _too_large(most: int) -> HiveError:
    return HiveError(
        Kind.USAGE, "reading the request failed", f"its body is larger than {most} bytes", "Send less"
    )
