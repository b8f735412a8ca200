"""Ingress: which connections from which peer's egress port reach which local target."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from ..logs import Log
from ..overlay.host import Connection
from ..overlay.quota import Allowance
from ..transport.muxstream import MuxedStream
from .header import PROXY, Header, Verdict, receive_header, send_verdict
from .pump import Counters, abort, join

log = Log("hived.proxy.ingress")

MAX_CONNECTIONS = 1024
CONNECT_SECONDS = 10.0
HEADER_SECONDS = 10.0
LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class Origin:
    """What must all be equal: network, origin peer, its egress port, and the port here."""

    network: str
    peer_id: str
    egress_port: int
    ingress_port: int


@dataclass(eq=False)
class IngressProxy:
    """One permission with its target (``host`` None: this machine's loopback), and its live connections."""

    origin: Origin
    host: str | None
    counters: Counters = field(default_factory=Counters)
    limit: int = MAX_CONNECTIONS
    live: set[trio.CancelScope] = field(default_factory=set)

    def cut(self) -> None:
        """End every live connection with a reset."""
        for scope in list(self.live):
            scope.cancel()


class Ingress:
    """Serves ``/hive/proxy/1.0.0``: joins a peer's stream to the target that is set for it."""

    def __init__(self, require: Callable[[Connection, bytes, str], str]) -> None:
        self._require = require
        self._proxies: dict[Origin, IngressProxy] = {}
        # What is logged of one peer's refused connections.
        self._lines = Allowance(burst=20, rate=1 / 60)
        self.accepting = True

    def add(self, proxy: IngressProxy) -> None:
        self._proxies[proxy.origin] = proxy

    def remove(self, proxy: IngressProxy) -> None:
        """Accept no more for it and cut what lives."""
        if self._proxies.get(proxy.origin) is proxy:
            del self._proxies[proxy.origin]
        proxy.cut()

    async def serve(self, stream: MuxedStream, connection: Connection) -> None:
        """One proxied connection, from header to end."""
        with trio.fail_after(HEADER_SECONDS):
            header = await receive_header(stream)
        network = self._require(connection, header.network, PROXY)
        proxy = self._find(header, network, connection.peer_id)
        if proxy is None or not self.accepting:
            if self._lines.take(connection.peer_id, trio.current_time()):
                log.warning(
                    "a connection was refused: no such ingress proxy",
                    network=network,
                    peer=connection.peer_id,
                    egress_port=header.egress_port,
                    ingress_port=header.ingress_port,
                )
            await self._refuse(stream, Verdict.NO_INGRESS)
            return
        if proxy.counters.connections >= proxy.limit:
            log.warning(
                "too many connections on an ingress proxy", port=header.ingress_port, limit=proxy.limit
            )
            await self._refuse(stream, Verdict.BUSY)
            return
        with trio.CancelScope() as scope:
            proxy.live.add(scope)
            proxy.counters.begin()
            try:
                await self._serve(stream, proxy)
            finally:
                proxy.counters.end()
                proxy.live.discard(scope)
                stream.reset()

    def _find(self, header: Header, network: str, peer_id: str) -> IngressProxy | None:
        return self._proxies.get(Origin(network, peer_id, header.egress_port, header.ingress_port))

    async def _serve(self, stream: MuxedStream, proxy: IngressProxy) -> None:
        try:
            local = await _connect(proxy.host, proxy.origin.ingress_port)
        except (OSError, trio.TooSlowError) as error:
            why = _why(error)
            proxy.counters.last_error = f"nothing answers on {proxy.host or 'this machine'}: {why}"
            log.warning(
                "the target of an ingress proxy does not answer", port=proxy.origin.ingress_port, why=why
            )
            await self._refuse(stream, Verdict.TARGET_REFUSED)
            return
        try:
            proxy.counters.last_error = None
            local.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await send_verdict(stream, Verdict.OPEN)
        except BaseException:
            abort(local)
            raise
        await join(local, stream, proxy.counters)

    @staticmethod
    async def _refuse(stream: MuxedStream, verdict: Verdict) -> None:
        await send_verdict(stream, verdict)
        await stream.send_eof()
        # Egress resets its side once it has read the verdict; a reset of ours could overtake that.
        with trio.move_on_after(HEADER_SECONDS):
            while await stream.receive_some(65536):
                pass


def _why(error: OSError | trio.TooSlowError) -> str:
    # trio wraps the failures of several addresses in a group, as the cause.
    while isinstance(error, OSError) and error.errno is None and error.__cause__ is not None:
        cause = error.__cause__
        first = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause
        if not isinstance(first, OSError):
            break
        error = first
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number else "no answer"


async def _connect(host: str | None, port: int) -> trio.SocketStream:
    """A TCP connection to the target; of several addresses the first that answers."""
    last: OSError = OSError("no address")
    with trio.fail_after(CONNECT_SECONDS):
        for name in [host] if host else LOOPBACK:
            try:
                return await trio.open_tcp_stream(name, port)
            except OSError as error:
                # The first reason counts: that there is no ::1 is no news.
                last = error if host or name == LOOPBACK[0] else last
    raise last
