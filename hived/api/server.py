"""Serves the routes table on HTTP connections, whichever door they came through."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import trio

from ..errors import HiveError, conflict, failed, usage
from ..logs import Log
from ..overlay.connection import Connection
from ..overlay.wire import receive
from ..transport.muxstream import MuxedStream
from . import openapi, remote
from .auth import Caller
from .http import ClientGoneError, HttpConnection, Request, problem_document
from .node import Node
from .routes import ROUTES, Route, Shape, find, invoke

log = Log("hived.api")

MAX_CLIENTS = 256
# A user who is not hived's cannot take all places from those who are.
MAX_CLIENTS_OF_ONE = 128
SOCKET_MODE = 0o660
_BACKLOG = 256
_LINES = "application/jsonl"
_JSON = msgspec.json.Encoder()
_Emit = Callable[[Any], Awaitable[None]]


class Server:
    """The API of one node on its Unix socket, and on ``/hive/api/1.0.0``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._clients = trio.CapacityLimiter(MAX_CLIENTS)
        self._by_uid: Counter[int | None] = Counter()
        self._openapi: bytes | None = None

    # The doors

    async def run(
        self, listener: trio.SocketListener, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve the Unix socket until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                # Before accept: more clients than that wait in the kernel.
                token = object()
                await self._clients.acquire_on_behalf_of(token)
                try:
                    stream = await listener.accept()
                except OSError as error:
                    self._clients.release_on_behalf_of(token)
                    log.error("accepting clients failed", why=error.strerror or error)
                    await trio.sleep(0.2)
                except BaseException:
                    self._clients.release_on_behalf_of(token)
                    raise
                else:
                    nursery.start_soon(self._serve_local, stream, token)

    async def _serve_local(self, stream: trio.SocketStream, token: object) -> None:
        try:
            credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            caller = Caller(uid=struct.unpack("3i", credentials)[1])
            if not caller.owns_node and self._by_uid[caller.uid] >= MAX_CLIENTS_OF_ONE:
                log.warning("too many clients of one user", uid=caller.uid)
                return
            self._by_uid[caller.uid] += 1
            try:
                await self._serve(stream, caller)
            finally:
                self._by_uid[caller.uid] -= 1
        except OSError as error:
            log.debug("a client vanished", why=error)
        except Exception:
            # A defect that one client met is not the others' end.
            log.exception("serving a client failed")
        finally:
            self._clients.release_on_behalf_of(token)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async def serve_member(self, stream: MuxedStream, connection: Connection) -> None:
        """The API for a member, over the overlay."""
        with trio.fail_after(10):
            opening = await receive(stream, remote.Open, 1024)
        self._node.membership.require(connection, opening.network, remote.API)
        await self._serve(stream, Caller(peer_id=connection.peer_id))

    # One connection

    async def _serve(self, stream: trio.abc.HalfCloseableStream, caller: Caller) -> None:
        async def larger(request: Request) -> int:
            # Before a byte of it is kept: only who may call is worth the memory.
            return (await self._admit(request, caller))[0].max_body

        http = HttpConnection(stream, larger)
        try:
            while True:
                try:
                    request = await http.receive()
                    if request is None:
                        return
                    await self._respond(http, request, caller)
                except HiveError as error:
                    await http.refuse(error)
        except ClientGoneError as error:
            log.debug("a client was let go", why=error)

    async def _admit(self, request: Request, caller: Caller) -> tuple[Route, dict[str, str], Caller]:
        """The route of a request, its path parameters, and the caller, who may call. Raises HiveError."""
        route, parameters = find(request.method, _target(request)[0])
        caller = await self._node.auth.identify(caller, _token(request))
        route.access.check(caller)
        return route, parameters, caller

    async def _respond(self, http: HttpConnection, request: Request, caller: Caller) -> None:
        path, query = _target(request)
        if request.method == "GET" and path == "/v1/openapi.json":
            self._openapi = self._openapi or openapi.document(ROUTES)
            await http.answer(200, self._openapi)
            return
        route, parameters, caller = await self._admit(request, caller)
        watch = route.shape is Shape.WATCH and _flag(query, "watch")
        unknown = set(query) - set(route.query)
        if unknown:
            raise usage(
                "reading the request failed",
                f"the call has no parameter {', '.join(sorted(unknown))}",
                "See /v1/openapi.json",
            )
        body = _body(route, request)
        if self._node.is_restored and request.method != "GET":
            raise conflict(
                f"{request.method} {path} failed",
                "hived is being restored from a backup, and starts anew now",
                "Try again in a few seconds",
            )
        call = _Call(self._node, route, caller, parameters, query, body)
        try:
            if watch:
                await _watch(http, call)
            elif route.shape is Shape.STREAM:
                await _lines(http, call.emitting)
            elif route.shape is Shape.TUNNEL:
                await _tunnel(http, request, call)
            else:
                answer = await call()
                if request.method != "GET":
                    log.info("changed", call=f"{request.method} {path}", caller=caller.binding)
                try:
                    await http.answer(200, _JSON.encode(answer))
                finally:
                    if route.restarts:
                        self._node.restart.set()
        except (HiveError, ClientGoneError):
            raise
        except Exception:
            log.exception("a call failed", method=request.method, path=path)
            raise failed(
                f"{request.method} {path} failed",
                "a defect in hived",
                "Its log has the details; please report them",
            ) from None


class _Call:
    """A call with its arguments, ready to be made (a watch makes it again and again)."""

    def __init__(
        self,
        node: Node,
        route: Route,
        caller: Caller,
        parameters: dict[str, str],
        query: dict[str, str],
        body: Any,
    ) -> None:
        self.node = node
        self.route = route
        self._arguments = (route, node, caller, parameters, query, body)

    async def __call__(self) -> Any:
        return await invoke(*self._arguments)

    async def emitting(self, emit: _Emit) -> None:
        route, node, caller, parameters, _, body = self._arguments
        await route.function(node, caller, **parameters, body=body, emit=emit)


async def _watch(http: HttpConnection, call: _Call) -> None:
    """The answer at once and after each change, a line each, until the client closes."""

    async def follow(emit: _Emit) -> None:
        while True:
            changed = call.node.changed
            await emit(await call())
            await changed.wait()
            # Changes come in bursts: one line tells them all.
            await trio.sleep(0.05)

    await _lines(http, follow)


async def _lines(http: HttpConnection, produce: Callable[[_Emit], Awaitable[None]]) -> None:
    """What ``produce`` emits, a line each, until it ends or the client closes.

    A failure before the first line is the answer; one after it is the last line.
    """
    begun = False
    problem: HiveError | None = None
    async with trio.open_nursery() as nursery:

        async def emit(item: Any) -> None:
            nonlocal begun
            try:
                if not begun:
                    begun = True
                    await http.begin(200, [("Content-Type", _LINES)])
                await http.send_line(_JSON.encode(item))
            except ClientGoneError:
                # Not raised: the producer may have nurseries of its own, which would wrap it.
                nursery.cancel_scope.cancel()
                await trio.lowlevel.checkpoint()

        nursery.start_soon(_cancel_when_closed, http, nursery.cancel_scope)
        try:
            await produce(emit)
        except HiveError as error:
            problem = error
        nursery.cancel_scope.cancel()
    if problem is not None and not begun:
        raise problem
    if problem is not None:
        await http.send_line(problem_document(problem))
    if begun:
        await http.end()


async def _cancel_when_closed(http: HttpConnection, scope: trio.CancelScope) -> None:
    await http.wait_closed()
    scope.cancel()


async def _tunnel(http: HttpConnection, request: Request, call: _Call) -> None:
    """Switch to raw bytes between the client and another node's API."""
    if request.headers.get("upgrade", "").lower() != "hive-api":
        raise usage("opening a tunnel failed", "the request does not ask for it", "Send Upgrade: hive-api")
    peer_id, far = await call()
    try:
        early = await http.switch(
            [("Connection", "Upgrade"), ("Upgrade", "hive-api"), ("Hive-Peer", peer_id)]
        )
        if early:
            await far.send_all(early)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_pass_on, http.stream, far)
            await _pass_on(far, http.stream)
            nursery.cancel_scope.cancel()
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        far.reset()
    raise ClientGoneError("the tunnel has ended")


async def _pass_on(source: trio.abc.HalfCloseableStream, sink: trio.abc.HalfCloseableStream) -> None:
    while data := await source.receive_some(65536):
        await sink.send_all(data)
    await sink.send_eof()


def _target(request: Request) -> tuple[str, dict[str, str]]:
    """The path and the query of a request. Raises HiveError (usage)."""
    try:
        parts = urlsplit(request.target)
        return parts.path, dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=16))
    except ValueError:
        raise usage(
            "reading the request failed", "its address is malformed", "See /v1/openapi.json"
        ) from None


def _flag(query: dict[str, str], name: str) -> bool:
    """Take a true or false out of the query."""
    value = query.pop(name, "false")
    if value not in ("true", "false"):
        raise usage("reading the request failed", f"{name} is {value!r}", "Write true or false")
    return value == "true"


def _token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _body(route: Route, request: Request) -> Any:
    what = "reading the request failed"
    if route.body is None:
        if request.body.strip() not in (b"", b"{}"):
            raise usage(what, "the call takes no body", "Send none")
        return None
    try:
        return msgspec.json.decode(request.body, type=route.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise usage(what, str(error), "See /v1/openapi.json") from None


def listen(path: Path) -> trio.SocketListener:
    """Bind the control socket (mode 0660). Raises HiveError when another hived answers there."""
    what = f"listening on {path} failed"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
                with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
                    probe.settimeout(1)
                    probe.connect(str(path))
                raise conflict(
                    what, "another hived answers there", "Stop it, or name another socket: --socket"
                )
            path.unlink(missing_ok=True)
        elif path.exists():
            raise conflict(
                what, "a file of that name is in the way", "Remove it, or name another socket: --socket"
            )
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Never open wider than meant, not for a moment.
        mask = os.umask(0o777 & ~SOCKET_MODE)
        try:
            sock.bind(str(path))
        finally:
            os.umask(mask)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise failed(what, error.strerror or str(error), "Check the directory's owner and mode") from None
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def remove(path: Path) -> None:
    """Take the socket file away again."""
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
