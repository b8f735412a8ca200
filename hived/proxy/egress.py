"""Egress: a listener on this node whose connections go through the overlay to ``peer:port``."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from ..errors import HiveError, conflict, failed, usage
from ..logs import Log, who
from ..overlay.connection import STREAM_ERRORS, Connection
from ..overlay.networkkeys import network_id
from ..overlay.quota import Allowance
from ..transport.listeners import is_reserved
from ..transport.plane import Plane
from ..transport.socketend import reset_when_closed
from ..transport.tunnel import Tunnel
from .acceptor import Acceptor, Calls
from .counters import Counters
from .egressend import EgressEnd
from .header import PROXY, Header, opening, send_header

log = Log("hived.proxy.egress")

MAX_CONNECTIONS = 1024
CLOSE_SECONDS = 5.0
# Between two lines that say that a proxy is full, or that accepting fails.
QUIET_SECONDS = 60.0
_BACKLOG = 512


@dataclass(frozen=True)
class Overlay:
    """What an egress proxy needs of the overlay: the data plane, and connections to members.

    ``find`` tells of one that is there, on any thread; ``connect`` makes one, raising HiveError.
    ``name``: what a peer calls itself, "" when that is not known; for the log.
    """

    plane: Plane
    find: Callable[[str, str], Connection | None]
    connect: Callable[[str, str], Awaitable[Connection]]
    name: Callable[[str], str] = lambda peer_id: ""


@dataclass(frozen=True)
class Route:
    """Where an egress listener's connections go; ``port`` is the one that identifies it to ingress."""

    network: str
    peer_id: str
    port: int
    peer_port: int


def hosts(host: str | None) -> Sequence[str]:
    """The addresses to listen on; None is every IPv4 and IPv6 address."""
    return [host] if host else ["0.0.0.0", "::"]


def bind(host: str | None, port: int) -> list[socket.socket]:
    """Listening sockets on ``host``:``port`` (see :func:`hosts`).

    Raises HiveError: conflict when the port is taken, usage for a ``host`` that is not this machine's.
    """
    what = f"listening on {host or '*'}:{port} failed"
    made: list[socket.socket] = []
    try:
        for text in hosts(host):
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
            prepare(sock)
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
        if is_reserved(port, error):
            raise failed(
                what,
                "hived may not use ports below 1024 here",
                "Choose a port above 1023; for 80 and 443, as root:"
                " systemctl enable hived-web.socket && systemctl restart hived",
            ) from None
        raise failed(what, error.strerror or str(error), "Check --bind and the port") from None
    return made


def prepare(sock: socket.socket) -> None:
    """Set on a listener what those that it accepts inherit: what a program writes goes out; resets pass."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reset_when_closed(sock)


class EgressProxy:
    """Serves already bound sockets; cancelled, it cuts its live connections.

    The data plane does the work (``acceptor``); here is what only trio can do for it: connect to the
    peer, and speak step by step with one that does not take a stream's data at once.
    """

    def __init__(
        self,
        route: Route,
        sockets: list[socket.socket],
        overlay: Overlay,
        counters: Counters | None = None,
        limit: int = MAX_CONNECTIONS,
        on_event: Callable[[str], None] | None = None,
    ) -> None:
        self.route = route
        self.sockets = sockets
        self.counters = counters or Counters(overlay.plane)
        self._overlay = overlay
        self._on_event = on_event
        self._header = Header(
            network=network_id(route.network), egress_port=route.port, ingress_port=route.peer_port
        )
        self._idle = trio.Event()
        self._draining = False
        self._quiet_until = self._untroubled_until = 0.0
        # What fails and works in turns is said now and then.
        self._lines = Allowance(burst=5, rate=1 / 60)
        self._nursery: trio.Nursery | None = None
        self._acceptor = Acceptor(
            overlay.plane,
            sockets,
            opening(self._header),
            self.counters,
            limit,
            explain=lambda verdict: verdict.explain(route.port, route.peer_port),
            calls=Calls(
                tunnel=self._tunnel,
                connect=partial(self._start, self._connect),
                negotiate=self._on_negotiate,
                failed=self._failed,
                trouble=self._trouble,
                full=self._on_full,
                idle=self._on_idle,
            ),
        )

    async def run(self) -> None:
        """Accept and forward until cancelled, or until :meth:`drain` and the last connection's end."""
        plane = self._overlay.plane
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    plane.call(self._acceptor.stop_listening if self._draining else self._acceptor.start)
                    await self._idle.wait()
                    nursery.cancel_scope.cancel()
                finally:
                    # While it closes, it takes no more tasks.
                    self._nursery = None
        finally:
            plane.call(self._acceptor.close)
            # Held back until the port is free and all is cut; the data plane waits for nobody.
            with trio.move_on_after(CLOSE_SECONDS) as scope:
                scope.shield = True
                await self._idle.wait()

    def drain(self) -> None:
        """Take no new connections; those that live go on."""
        self._draining = True
        self._overlay.plane.call(self._acceptor.stop_listening)

    # What the acceptor asks for

    def _tunnel(self) -> Tunnel | None:
        """On the data plane's thread."""
        connection = self._overlay.find(self.route.peer_id, self.route.network)
        return connection.muxer.tunnel if connection is not None else None

    def _start(self, function: Callable[..., Awaitable[None]], *arguments: object) -> bool:
        if self._nursery is None:
            return False
        self._nursery.start_soon(function, *arguments)
        return True

    async def _connect(self) -> None:
        plane, route = self._overlay.plane, self.route
        try:
            await self._overlay.connect(route.peer_id, route.network)
        except HiveError as error:
            plane.call(self._acceptor.unreachable, f"{error.what}: {error.why}")
        else:
            plane.call(self._acceptor.connected)

    def _on_negotiate(self, sock: socket.socket, early: bytes) -> None:
        if not self._start(self._negotiate, sock, early):
            self._overlay.plane.call(self._acceptor.not_negotiated, sock, "the proxy was stopped")

    async def _negotiate(self, sock: socket.socket, early: bytes) -> None:
        """The slow way: ask for the protocol, wait, send the header, then what was sent too early."""
        plane, route, acceptor = self._overlay.plane, self.route, self._acceptor
        why, taken = "the proxy was stopped", False
        try:
            connection = await self._overlay.connect(route.peer_id, route.network)
            stream = await connection.open_stream(PROXY)
            try:
                await send_header(stream, self._header)
                left = stream.detach()
            except BaseException:
                stream.reset()
                raise
        except HiveError as error:
            why = f"{error.what}: {error.why}"
        except STREAM_ERRORS as error:
            why = f"the connection to the other node broke ({error})"
        else:

            def take_over() -> None:
                kept = stream.mailbox.stream
                assert kept is not None
                if not kept.dead:
                    kept.head = stream.mailbox.take_over(*left) + early
                tunnel = connection.muxer.tunnel
                acceptor.negotiated(EgressEnd(acceptor, tunnel, kept, sock, optimistic=False))

            plane.call(take_over)
            taken = True
        finally:
            if not taken:
                plane.call(acceptor.not_negotiated, sock, why)

    def _on_idle(self) -> None:
        self._idle.set()

    def _trouble(self, why: str) -> None:
        if trio.current_time() >= self._untroubled_until:
            self._untroubled_until = trio.current_time() + QUIET_SECONDS
            log.error("accepting connections failed", port=self.route.port, why=why)

    def _on_full(self) -> None:
        # At the limit, each connection that ends lets in another, and it is full again.
        if trio.current_time() >= self._quiet_until:
            self._quiet_until = trio.current_time() + QUIET_SECONDS
            trouble = self.counters.trouble
            log.warning("a proxy is full", port=self.route.port, why=trouble.why if trouble else "")

    def _failed(self, why: str) -> None:
        if self.counters.last_error != why and self._lines.take("", trio.current_time()):
            peer_id, port = self.route.peer_id, self.route.port
            log.warning(
                "forwarding a connection failed",
                port=port,
                **who(peer_id, self._overlay.name(peer_id)),
                why=why,
            )
        self.counters.failed(why)
        if self._on_event:
            self._on_event(why)
