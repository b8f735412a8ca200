"""HTTP over any stream: whatever the bytes and however they are cut, an answer or an end, and soon."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair, trio_test

from hived.api.http import (
    IDLE_SECONDS,
    MAX_BODY,
    MAX_HEADERS,
    REQUEST_SECONDS,
    SEND_SECONDS,
    ClientGoneError,
    HttpConnection,
    Request,
)
from hived.errors import HiveError, Kind

GET = b"GET /v1/info HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = b"PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
PIECES = [
    GET,
    POST,
    CHUNKED,
    b"GET",
    b" ",
    b"/",
    b"HTTP/1.1",
    b"\r\n",
    b"\r\n\r\n",
    b"Host: x",
    b"Content-Length: ",
    b"-1",
    b"99999999999",
    b"Transfer-Encoding: chunked",
    b"ffffffffff\r\n",
    b"Expect: 100-continue",
    b"Upgrade: x",
    b"CONNECT x:1 HTTP/1.1",
    b"\x00",
    b"\xff",
    b"HTTP/1.0",
    b"Connection: close",
]


def served(data: bytes, cuts: list[int]) -> list[Request | HiveError | None]:
    """What a server that answers everything makes of a client that sends this and ends."""
    got: list[Request | HiveError | None] = []

    async def main() -> None:
        client, server = memory_stream_pair()
        http = HttpConnection(server)

        async def send() -> None:
            last = 0
            for cut in sorted(cut % (len(data) + 1) for cut in cuts):
                await client.send_all(data[last:cut])
                last = cut
                await trio.testing.wait_all_tasks_blocked()
            await client.send_all(data[last:])
            await client.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            try:
                while got[-1:] != [None]:
                    try:
                        got.append(await http.receive())
                    except HiveError as error:
                        got.append(error)
                        await http.answer(error.kind.status, b"{}")
                    else:
                        if got[-1] is not None:
                            await http.answer(200, b"{}")
            except ClientGoneError:
                pass

    with_clock = MockClock(autojump_threshold=0)
    trio.run(main, clock=with_clock)
    return got


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), max_size=12).map(b"".join),
    st.lists(st.integers(0, 2000), max_size=4),
)
def test_any_bytes_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    """Never another exception than the two, and never a hang (which the clock would end as too slow)."""
    for item in served(data, cuts):
        assert item is None or isinstance(item, (Request, HiveError))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([GET, POST, CHUNKED]), max_size=4), st.lists(st.integers(0, 2000), max_size=5)
)
def test_good_requests_come_through_however_cut(requests: list[bytes], cuts: list[int]) -> None:
    """Also pipelined: each in turn, with its body."""
    got = served(b"".join(requests), cuts)
    assert got[-1] is None
    bodies = {GET: b"", POST: b"body", CHUNKED: b"abc"}
    assert [item.body for item in got[:-1] if isinstance(item, Request)] == [bodies[r] for r in requests]


def test_a_request() -> None:
    (request, _) = served(
        b"PUT /a%20b?c=d HTTP/1.1\r\nHost: x\r\nX-Thing: 1\r\nContent-Length: 2\r\n\r\nhi", []
    )
    assert isinstance(request, Request)
    assert (request.method, request.target, request.body) == ("PUT", "/a%20b?c=d", b"hi")
    assert request.headers["x-thing"] == "1"


def test_old_http_and_close_end_after_one() -> None:
    for head in (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
        got = served(head + GET, [])
        assert isinstance(got[0], Request)
        assert got[1:] == [None]


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1) + bytes(MAX_BODY + 1),
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"10000\r\n"
        + bytes(65536)
        + b"\r\n"
        + (b"10000\r\n" + bytes(65536) + b"\r\n") * 5,
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (MAX_HEADERS * 5),
        b"GET /" + b"a" * (MAX_HEADERS * 5),
        b"garbage\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_too_much_and_malformed(data: bytes) -> None:
    (error, *_) = served(data, [])
    assert isinstance(error, HiveError)
    assert error.kind is Kind.USAGE


def test_the_largest_body() -> None:
    (request, _) = served(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % MAX_BODY + bytes(MAX_BODY), []
    )
    assert isinstance(request, Request)
    assert len(request.body) == MAX_BODY


def test_expect_continue() -> None:
    async def main() -> None:
        client, server = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(HttpConnection(server).receive)
            await client.send_all(
                b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
            )
            assert (await client.receive_some()).startswith(b"HTTP/1.1 100 ")
            await client.send_all(b"ab")

    trio.run(main)


# Time, with a clock that the test moves


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@trio_test
async def test_a_silent_client_is_dropped(clock: MockClock) -> None:
    _client, server = memory_stream_pair()
    with pytest.raises(ClientGoneError, match="slow"):
        await HttpConnection(server).receive()
    assert trio.current_time() == pytest.approx(IDLE_SECONDS)


@trio_test
async def test_a_slow_client_is_dropped(clock: MockClock) -> None:
    """A byte now and then does not keep a request alive."""
    client, server = memory_stream_pair()

    async def drip() -> None:
        while True:
            await client.send_all(b"G")
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        with pytest.raises(ClientGoneError, match="slow"):
            await HttpConnection(server).receive()
        nursery.cancel_scope.cancel()
    assert trio.current_time() == pytest.approx(REQUEST_SECONDS)


@trio_test
async def test_a_client_that_does_not_read_is_dropped(clock: MockClock) -> None:
    client, server = trio.testing.lockstep_stream_pair()
    http = HttpConnection(server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, GET)
        await http.receive()
    with pytest.raises(ClientGoneError):
        await http.answer(200, b"{}")
    assert trio.current_time() == pytest.approx(SEND_SECONDS)


@trio_test
async def test_a_client_that_vanishes() -> None:
    client, server = memory_stream_pair()
    http = HttpConnection(server)
    await client.send_all(GET)
    await http.receive()
    await client.aclose()
    with pytest.raises(ClientGoneError):
        await http.answer(200, b"{}")
    await http.wait_closed()


@trio_test
async def test_lines_and_switch() -> None:
    client, server = memory_stream_pair()
    http = HttpConnection(server)
    await client.send_all(GET)
    await http.receive()
    await http.begin(200, [("Content-Type", "application/jsonl")])
    await http.send_line(b"one")
    await http.end()
    assert b"one\n" in await client.receive_some()
    await client.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nUpgrade: y\r\nConnection: Upgrade\r\n\r\nearly")
    await http.receive()
    assert await http.switch([("Upgrade", "y"), ("Connection", "Upgrade")]) == b"early"
    assert (await client.receive_some()).startswith(b"HTTP/1.1 101 ")


# Larger bodies


def announcing(size: int, sent: int | None = None) -> bytes:
    return b"POST /big HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + bytes(
        size if sent is None else sent
    )


async def asked(data: bytes, most: int | HiveError) -> tuple[Request | HiveError | None, list[Request]]:
    """What the server makes of it, and what it asked about."""
    client, server = memory_stream_pair()
    questions: list[Request] = []

    async def larger(request: Request) -> int:
        questions.append(request)
        if isinstance(most, HiveError):
            raise most
        return most

    http = HttpConnection(server, larger)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, data)
        try:
            got: Request | HiveError | None = await http.receive()
        except HiveError as error:
            got = error
        nursery.cancel_scope.cancel()
    return got, questions


@trio_test
async def test_a_larger_body_is_asked_for() -> None:
    """Once, with the head alone; what is in the usual bounds never."""
    size = 3 * MAX_BODY
    got, questions = await asked(announcing(size), size)
    assert isinstance(got, Request)
    assert len(got.body) == size
    assert [(q.method, q.target, q.headers["host"], q.body) for q in questions] == [
        ("POST", "/big", "x", b"")
    ]
    got, questions = await asked(announcing(MAX_BODY), 0)
    assert isinstance(got, Request)
    assert questions == []


@pytest.mark.parametrize("size", [3 * MAX_BODY + 1, 10**17, 10**19])
@trio_test
async def test_a_body_beyond_what_is_allowed_is_not_read(size: int) -> None:
    got, _ = await asked(announcing(size, 0), 3 * MAX_BODY)
    assert isinstance(got, HiveError)
    assert f"larger than {3 * MAX_BODY}" in got.line()


@trio_test
async def test_a_refusal_comes_before_the_body() -> None:
    got, _ = await asked(announcing(MAX_BODY + 1, 0), HiveError(Kind.LOGIN_REQUIRED, "no"))
    assert isinstance(got, HiveError)
    assert got.kind is Kind.LOGIN_REQUIRED


@trio_test
async def test_a_chunked_body_stays_in_the_usual_bounds() -> None:
    head = b"POST /big HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (MAX_BODY + 1)
    got, questions = await asked(head + bytes(MAX_BODY + 1), 10 * MAX_BODY)
    assert isinstance(got, HiveError)
    assert questions == []


def test_a_larger_body_has_more_time_but_not_for_ever() -> None:
    """By the size that is allowed; a client that sends a byte in a while is let go."""
    size = 20 * 1024 * 1024

    async def main() -> None:
        client, server = memory_stream_pair()

        async def larger(request: Request) -> int:
            return size

        http = HttpConnection(server, larger)
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                await client.send_all(announcing(size, 0))
                while True:
                    await trio.sleep(1)
                    await client.send_all(b"x")

            nursery.start_soon(drip)
            start = trio.current_time()
            with pytest.raises(ClientGoneError, match="too slow"):
                await http.receive()
            assert trio.current_time() - start == pytest.approx(REQUEST_SECONDS + 20, abs=0.1)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_large_answer_has_its_time_for_each_part() -> None:
    """A reader that takes nearly all the time for each part gets the whole."""

    async def main() -> None:
        client, server = memory_stream_pair()
        http = HttpConnection(server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, GET)
            await http.receive()
            waited = 0

            async def slow() -> None:
                nonlocal waited
                waited += 1
                await trio.sleep(SEND_SECONDS * 0.9)

            server.send_stream.send_all_hook = slow
            await http.answer(200, bytes(2 * 1024 * 1024))
            assert waited > 4
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
