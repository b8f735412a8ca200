"""Egress: a listener on this node whose connections go through the overlay to ``peer:port``."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import trio

from ..errors import HiveError, conflict, failed, usage
from ..logs import Log
from ..overlay.networkkeys import network_id
from ..transport.muxstream import MuxedStream
from .header import PROXY, Header, send_header
from .pump import Counters, RefusedError, abort, join

log = Log("hived.proxy.egress")

MAX_CONNECTIONS = 1024
_BACKLOG = 512

OpenStream = Callable[[str, str, str], Awaitable[MuxedStream]]


@dataclass(frozen=True)
class Route:
    """Where an egress listener's connections go; ``port`` is the one that identifies it to ingress."""

    network: str
    peer_id: str
    port: int
    peer_port: int


def bind(host: str | None, port: int) -> list[socket.socket]:
    """Listening sockets on ``host``:``port``; None is every IPv4 and IPv6 address.

    Raises HiveError: conflict when the port is taken, usage for a ``host`` that is not this machine's.
    """
    what = f"listening on {host or '*'}:{port} failed"
    wanted: Sequence[str] = [host] if host else ["0.0.0.0", "::"]
    made: list[socket.socket] = []
    try:
        for text in wanted:
            ip = ipaddress.ip_address(text)
            family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError:
                if host is None and made:
                    continue  # a kernel without IPv6
                raise
            made.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((str(ip), port))
            except OSError as error:
                if host is None and family == socket.AF_INET6 and error.errno == errno.EADDRNOTAVAIL:
                    made.pop().close()
                    continue
                raise
            sock.listen(_BACKLOG)
            sock.setblocking(False)
    except BaseException as error:
        for sock in made:
            sock.close()
        if isinstance(error, ValueError):
            raise usage(what, f"{host!r} is no IP address", "Write for example --bind 127.0.0.1") from None
        if not isinstance(error, OSError):
            raise
        if error.errno == errno.EADDRINUSE:
            raise conflict(
                what, f"port {port} is taken", "Choose another port, or stop what uses it"
            ) from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise usage(what, f"{host} is no address of this machine", "Name one with --bind") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise failed(
                what, "hived may not use ports below 1024 here", "Choose a port above 1023"
            ) from None
        raise failed(what, error.strerror or str(error), "Check --bind and the port") from None
    return made


@dataclass(eq=False)
class EgressProxy:
    """Serves already bound sockets; cancelled, it cuts its live connections.

    ``listening`` is False once the listener died. Beyond MAX_CONNECTIONS new ones wait in the kernel.
    """

    route: Route
    sockets: list[socket.socket]
    open_stream: OpenStream
    counters: Counters = field(default_factory=Counters)
    limit: int = MAX_CONNECTIONS
    on_event: Callable[[str], None] | None = None
    _stop_listening: trio.CancelScope = field(default_factory=trio.CancelScope)
    _closed: bool = False
    _held: set[trio.CancelScope] = field(default_factory=set)

    async def run(self) -> None:
        """Accept and forward until cancelled, or until :meth:`drain` and the last connection's end."""
        slots = trio.CapacityLimiter(self.limit)
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in self.sockets]
        try:
            async with trio.open_nursery() as connections:
                try:
                    with self._stop_listening:
                        async with trio.open_nursery() as accepting:
                            for listener in listeners:
                                accepting.start_soon(self._accept, listener, connections, slots)
                finally:
                    self._close()
        finally:
            self._close()

    @contextlib.contextmanager
    def _until_closed(self) -> Iterator[None]:
        """Hold a cancellation back until the port is free: who sees the reset and tries again is refused."""
        with trio.CancelScope(shield=not self._closed) as scope:
            self._held.add(scope)
            try:
                yield
            finally:
                self._held.discard(scope)

    def drain(self) -> None:
        """Take no new connections; those that live go on."""
        self._stop_listening.cancel()

    def _close(self) -> None:
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                sock.close()
        self._closed = True
        for scope in self._held:
            scope.shield = False

    async def _accept(
        self, listener: trio.SocketListener, connections: trio.Nursery, slots: trio.CapacityLimiter
    ) -> None:
        while True:
            token = object()
            await slots.acquire_on_behalf_of(token)
            try:
                local = await listener.accept()
            except OSError as error:
                slots.release_on_behalf_of(token)
                log.error("accepting connections failed", port=self.route.port, why=error.strerror or error)
                await trio.sleep(0.2)
            except BaseException:
                slots.release_on_behalf_of(token)
                raise
            else:
                connections.start_soon(self._forward_until_cut, local, slots, token)

    async def _forward_until_cut(
        self, local: trio.SocketStream, slots: trio.CapacityLimiter, token: object
    ) -> None:
        with self._until_closed():
            await self._forward(local, slots, token)

    async def _forward(self, local: trio.SocketStream, slots: trio.CapacityLimiter, token: object) -> None:
        route, counters = self.route, self.counters
        counters.begin()
        try:
            local.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = await self.open_stream(route.peer_id, route.network, PROXY)
            try:
                await send_header(
                    stream,
                    Header(
                        network=network_id(route.network),
                        egress_port=route.port,
                        ingress_port=route.peer_port,
                    ),
                )
            except BaseException:
                stream.reset()
                raise
            await join(local, stream, counters, await_verdict=True)
            counters.last_error = None
        except HiveError as error:
            self._failed(f"{error.what}: {error.why}")
        except RefusedError as error:
            self._failed(error.verdict.explain(route.port, route.peer_port))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            self._failed(f"the connection to the other node broke ({error})")
        finally:
            counters.end()
            slots.release_on_behalf_of(token)
            # No-op when join() had it; the client must not wait for a peer that is not there.
            if local.socket.fileno() >= 0:
                abort(local)

    def _failed(self, why: str) -> None:
        if self.counters.last_error != why:
            log.warning(
                "forwarding a connection failed", port=self.route.port, peer=self.route.peer_id, why=why
            )
        self.counters.last_error = why
        if self.on_event:
            self.on_event(why)
