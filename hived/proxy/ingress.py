"""Ingress: which connections from which peer's egress port reach which local target."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import NamedTuple

import trio

from ..logs import Log, who
from ..overlay.connection import Connection
from ..overlay.quota import Allowance
from ..overlay.wire import ProtocolError
from ..transport.muxstream import MuxedStream
from ..transport.plane import Plane
from ..transport.stream import Stream
from .counters import Counters
from .header import ANSWER, PROXY, Header, Verdict, parse_opening, receive_header, send_verdict
from .ingressend import LOOPBACK, REFUSE_SECONDS, Address, Dialing, IngressEnd, Refusal, tune

log = Log("hived.proxy.ingress")

MAX_CONNECTIONS = 1024
HEADER_SECONDS = 10.0
LOOKUP_SECONDS = 10.0


class Origin(NamedTuple):
    """What must all be equal: network, origin peer, its egress port, and the port here."""

    network: str
    peer_id: str
    egress_port: int
    ingress_port: int


class IngressProxy:
    """One permission with its target (``host`` None: this machine's loopback), and its live connections."""

    def __init__(
        self,
        origin: Origin,
        host: str | None,
        counters: Counters,
        limit: int = MAX_CONNECTIONS,
        name: Callable[[str], str] = lambda peer_id: "",
    ) -> None:
        self.origin = origin
        self.host = host
        self.counters = counters
        self.limit = limit
        self.addresses = self._known_addresses()
        """Where the target is; None when its name has to be looked up."""
        self._name = name
        self._lines = Allowance(burst=5, rate=1 / 60)
        self._live: set[Dialing | IngressEnd] = set()

    @property
    def plane(self) -> Plane:
        return self.counters.plane

    def _known_addresses(self) -> list[Address] | None:
        port = self.origin.ingress_port
        if self.host is None:
            return [(host, port) for host in LOOPBACK]
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return None
        return [(self.host, port)]

    def cut(self) -> None:
        """End every live connection with a reset, from trio's thread."""
        self.plane.call(self._cut)

    # On the data plane's thread

    def join(self, stream: Stream, addresses: list[Address]) -> None:
        """Join a stream to the target; its verdict goes before the target's data."""
        dialing = Dialing(self.plane, stream, addresses, self._dialled)
        self._live.add(dialing)
        self.counters.begin()
        dialing.start()
        if stream.end is dialing and stream.head:
            # Egress hears at once that we speak the protocol; the verdict may take its time.
            stream.ready()

    def _dialled(self, dialing: Dialing, sock: socket.socket | None, why: str, events: int) -> None:
        self._live.discard(dialing)
        stream = dialing.stream
        if sock is None:
            self.counters.end()
            if not stream.dead:
                stream.attach(Refusal(self.plane, stream, Verdict.TARGET_REFUSED))
                self.plane.tell(self.unanswered, why)
            return
        tune(sock)
        self.counters.last_error = None
        stream.head += bytes([Verdict.OPEN])
        end = IngressEnd(self.plane, stream, sock, self.counters, self._ended)
        self._live.add(end)
        end.start(watched=events != 0)
        if events:
            # The target may have said all that it has to say.
            end.event(events)

    def _ended(self, end: IngressEnd) -> None:
        self._live.discard(end)
        self.counters.end()

    def _cut(self) -> None:
        for end in list(self._live):
            end.cut()
            if isinstance(end, Dialing):
                self._live.discard(end)
                self.counters.end()

    # On trio's thread

    def unanswered(self, why: str) -> None:
        """The target could not be reached."""
        text = f"nothing answers on {self.host or 'this machine'}, port {self.origin.ingress_port}: {why}"
        if text != self.counters.last_error and self._lines.take("", trio.current_time()):
            # Once, until it answers again: the other node's clients may ask a thousand times a second. And
            # of one that comes and goes now and then.
            log.warning(
                "the target of an ingress proxy does not answer",
                **who(self.origin.peer_id, self._name(self.origin.peer_id)),
                port=self.origin.ingress_port,
                why=why,
            )
        self.counters.failed(text)


class Ingress:
    """Serves ``/hive/proxy/1.0.0``: joins a peer's stream to the target that is set for it.

    ``member`` tells the network of an ID where a peer is a member, else None; on any thread. ``require`` does
    so on trio's, and raises ProtocolError. ``name``: what a peer calls itself, for the log.
    """

    def __init__(
        self,
        member: Callable[[Connection, bytes], str | None],
        require: Callable[[Connection, bytes, str], str],
        name: Callable[[str], str] = lambda peer_id: "",
    ) -> None:
        self._member = member
        self._require = require
        self._name = name
        self._proxies: dict[Origin, IngressProxy] = {}
        # What is logged of one peer's refused connections.
        self._lines = Allowance(burst=20, rate=1 / 60)
        self.accepting = True

    def add(self, proxy: IngressProxy) -> None:
        self._proxies[proxy.origin] = proxy

    def remove(self, proxy: IngressProxy) -> None:
        """Accept no more for it and cut what lives."""
        # In this order: the data plane looks here, and what it has joined by then is cut.
        if self._proxies.get(proxy.origin) is proxy:
            del self._proxies[proxy.origin]
        proxy.cut()

    def greet(self, connection: Connection, stream: Stream, data: bytes) -> bool | None:
        """Take a stream that negotiates at once, on the data plane's thread (transport.greeting).

        Whatever is not as it should be is left to ``serve``, which says so.
        """
        try:
            found = parse_opening(data)
            if found is None:
                return None
        except ProtocolError:
            return False
        header, rest = found
        network = self._member(connection, header.network)
        proxy = self._find(header, network, connection.peer_id) if network else None
        if proxy is None or not self.accepting or proxy.counters.connections >= proxy.limit:
            return False
        addresses = proxy.addresses
        if addresses is None:
            return False
        stream.session.accept(stream)
        stream.head = ANSWER
        stream.put_back(rest)
        proxy.join(stream, addresses)
        return True

    async def serve(self, stream: MuxedStream, connection: Connection) -> None:
        """One proxied connection whose protocol has been negotiated, from its header to the join."""
        with trio.fail_after(HEADER_SECONDS):
            header = await receive_header(stream)
        network = self._require(connection, header.network, PROXY)
        proxy = self._find(header, network, connection.peer_id)
        if proxy is None or not self.accepting:
            if self._lines.take(connection.peer_id, trio.current_time()):
                log.warning(
                    "a connection was refused: no such ingress proxy",
                    network=network,
                    **who(connection.peer_id, self._name(connection.peer_id)),
                    egress_port=header.egress_port,
                    ingress_port=header.ingress_port,
                )
            await self._refuse(stream, Verdict.NO_INGRESS)
            return
        if proxy.counters.connections >= proxy.limit:
            if self._lines.take(connection.peer_id, trio.current_time()):
                log.warning(
                    "too many connections on an ingress proxy",
                    **who(connection.peer_id, self._name(connection.peer_id)),
                    port=header.ingress_port,
                    limit=proxy.limit,
                )
            await self._refuse(stream, Verdict.BUSY)
            return
        addresses = proxy.addresses
        if addresses is None:
            try:
                addresses = await _look_up(proxy)
            except (OSError, UnicodeError, trio.TooSlowError):
                proxy.unanswered("the host name is not known")
                await self._refuse(stream, Verdict.TARGET_REFUSED)
                return
        left = stream.detach()

        def take_over() -> None:
            kept = stream.mailbox.stream
            assert kept is not None
            if kept.dead:
                kept.discard()
                return
            kept.head = stream.mailbox.take_over(*left)
            if self._proxies.get(proxy.origin) is not proxy:
                kept.reset()
            elif proxy.counters.connections >= proxy.limit:
                # Others came while this one's target was looked up.
                kept.attach(Refusal(proxy.plane, kept, Verdict.BUSY))
            else:
                proxy.join(kept, addresses)

        proxy.plane.call(take_over)

    def _find(self, header: Header, network: str, peer_id: str) -> IngressProxy | None:
        return self._proxies.get(Origin(network, peer_id, header.egress_port, header.ingress_port))

    @staticmethod
    async def _refuse(stream: MuxedStream, verdict: Verdict) -> None:
        await send_verdict(stream, verdict)
        await stream.send_eof()
        # Egress resets its side once it has read the verdict; a reset of ours could overtake that.
        with trio.move_on_after(REFUSE_SECONDS):
            while await stream.receive_some(65536):
                pass


async def _look_up(proxy: IngressProxy) -> list[Address]:
    """The addresses of a target that has a name. Raises OSError, UnicodeError or trio.TooSlowError."""
    port = proxy.origin.ingress_port
    with trio.fail_after(LOOKUP_SECONDS):
        found = await trio.socket.getaddrinfo(proxy.host, port, type=socket.SOCK_STREAM)
    return [(str(address[0]), port) for _, _, _, _, address in found]
