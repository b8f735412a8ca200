"""What clients hear whose connections wait in a socket unit's queue for a hived that cannot start.

Without it they would wait on, and the unit would start hived for them again and again.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence

import trio

from ..errors import HiveError, Kind
from ..transport.socketend import abort
from .http import ClientGoneError, HttpConnection

# Who comes while hived says so hears it too. It also is the least that a start for somebody's sake takes: the
# unit gives up after so many a minute, and no people or scripts are to bring it there.
STAY_SECONDS = 0.5
# A client that was the reason to start hived has sent its request by now.
REQUEST_SECONDS = 1.0
_MOST_AT_ONCE = 256


def refuse(control: socket.socket | None, others: Sequence[socket.socket], why: HiveError) -> None:
    """Answer who waits at the control socket with why hived does not start, and reset who waits at others.

    Takes half a second where somebody waits, and where nobody does no time. The sockets are closed then.
    """
    reason = why.what + (f": {why.why}" if why.why else "")
    error = HiveError(Kind.NO_DAEMON, "hived cannot start", reason, why.hint)
    sockets = [*([control] if control else ()), *others]
    try:
        if sockets and select.select(sockets, (), (), 0)[0]:
            trio.run(_refuse, control, others, error)
    finally:
        for sock in sockets:
            sock.close()


async def _refuse(control: socket.socket | None, others: Sequence[socket.socket], error: HiveError) -> None:
    async with trio.open_nursery() as answers:
        with trio.move_on_after(STAY_SECONDS):
            async with trio.open_nursery() as nursery:
                if control is not None:
                    nursery.start_soon(_answer_all, control, error, answers)
                for sock in others:
                    nursery.start_soon(_reset_all, sock)


async def _answer_all(control: socket.socket, error: HiveError, answers: trio.Nursery) -> None:
    places = trio.Semaphore(_MOST_AT_ONCE)
    while True:
        await places.acquire()
        client = await _accept(control)
        answers.start_soon(_answer, client, error, places)


async def _reset_all(listener: socket.socket) -> None:
    while True:
        abort(await _accept(listener))


async def _accept(listener: socket.socket) -> socket.socket:
    while True:
        await trio.lowlevel.wait_readable(listener)
        try:
            return listener.accept()[0]
        except OSError:
            # Somebody vanished, or there is no descriptor left.
            await trio.sleep(0.01)


async def _answer(client: socket.socket, error: HiveError, places: trio.Semaphore) -> None:
    try:
        async with trio.SocketStream(trio.socket.from_stdlib_socket(client)) as stream:
            http = HttpConnection(stream)
            try:
                with trio.move_on_after(REQUEST_SECONDS):
                    await http.receive()
            except HiveError:
                pass  # it is no request, but it is answered
            with trio.move_on_after(REQUEST_SECONDS):
                await http.refuse(error)
    except ClientGoneError:
        pass
    finally:
        places.release()
