"""What clients hear whose connections wait at the control socket of a hived that cannot start."""

from __future__ import annotations

import socket

import trio

from ..errors import HiveError, Kind
from .http import ClientGoneError, HttpConnection

# A client that was the reason to start hived has sent its request by now.
REQUEST_SECONDS = 1.0
MOST_CLIENTS = 256


def refuse(listener: socket.socket | None, why: HiveError) -> None:
    """Answer all who wait there with why hived does not start, two seconds at most; then close it.

    Without it they would wait on, and a socket unit would start hived for them again and again.
    """
    error = HiveError(
        Kind.NO_DAEMON, "hived cannot start", why.what + (f": {why.why}" if why.why else ""), why.hint
    )
    if listener is not None:
        with listener:
            trio.run(_refuse, listener, error)


async def _refuse(listener: socket.socket, error: HiveError) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(MOST_CLIENTS):
            try:
                client, _ = listener.accept()
            except OSError:
                break  # nobody waits any more
            nursery.start_soon(_answer, client, error)


async def _answer(client: socket.socket, error: HiveError) -> None:
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
    async with stream:
        http = HttpConnection(stream)
        try:
            with trio.move_on_after(REQUEST_SECONDS):
                await http.receive()
            with trio.move_on_after(REQUEST_SECONDS):
                await http.refuse(error)
        except (ClientGoneError, HiveError):
            pass
