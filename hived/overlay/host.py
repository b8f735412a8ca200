"""The host: dialing one address, connections, and who serves which protocol; who comes in is inbound's.

py-libp2p's own swarm and host are not used (they leak inbound slots, dial by
themselves, and let one failing handler end the node); its handshakes, IDs and messages are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial

import trio

from ..errors import HiveError
from ..logs import Log
from ..transport.carrier import Carrier
from ..transport.frames import INITIAL_WINDOW
from ..transport.limits import MuxLimits
from ..transport.listeners import Kept, NothingKept
from ..transport.multistream import HandshakeError, negotiate
from ..transport.muxer import Muxer
from ..transport.muxstream import MuxedStream
from ..transport.pipes import SocketPipe
from ..transport.plane import Plane
from ..transport.secure import Upgrader
from ..transport.stream import Stream
from .addresses import of_socket, parse
from .connection import NEGOTIATE_SECONDS, STREAM_ERRORS, Connection, DialError
from .identity import Identity
from .inbound import Inbound
from .quota import Allowance
from .sockets import connect, take, why

log = Log("hived.overlay.host")

CONNECT_SECONDS = 5.0
MAX_STRANGERS = 256
MAX_STRANGER_STREAMS = 16
SAME_TIME_SECONDS = 5.0
MAX_OF_ONE_PEER = 8
# Before a membership: few streams, and windows that do not grow.
# All of them together hold less than what makes members' windows shrink (transport/budget.py).
STRANGER = MuxLimits(
    max_streams=64,
    accept_backlog=32,
    max_window=INITIAL_WINDOW,
    max_held=INITIAL_WINDOW // 2,
    frames_at_once=32,
    read_at_once=32 * 1024,
    borrows=False,
)

StreamHandler = Callable[[MuxedStream, Connection], Awaitable[None]]


class Host:
    """Accepts and makes connections, and serves their streams by protocol.

    ``blocked`` tells which peers are turned away; ``on_connected`` and ``on_disconnected``
    are called for every connection, in this order. ``kept``: listeners that outlive the host.
    """

    def __init__(
        self, identity: Identity, blocked: Callable[[str], bool], plane: Plane, kept: Kept | None = None
    ) -> None:
        self.identity = identity
        self.plane = plane
        # Sees each incoming stream's first bytes on the data plane's thread (transport.greeting).
        self.greeter: Callable[[Connection, Stream, bytes], bool | None] | None = None
        self.handlers: dict[str, StreamHandler] = {}
        self.member_handlers: dict[str, StreamHandler] = {}
        self.connections: dict[str, list[Connection]] = {}
        self.on_connected: list[Callable[[Connection], None]] = []
        self.on_disconnected: list[Callable[[Connection], None]] = []
        self._blocked = blocked
        self._upgrader = Upgrader(identity.key_pair)
        self.inbound = Inbound(kept or NothingKept(), self._welcome)
        self._lines = Allowance(burst=5, rate=0.02)
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; then every connection is closed, and its peer told that this was meant."""
        async with trio.open_nursery() as outer:
            nursery = self._nursery = self.inbound.nursery = await outer.start(_apart)
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self.stop_listening()
                self._nursery = self.inbound.nursery = None
                with trio.move_on_after(1) as scope:
                    scope.shield = True
                    async with trio.open_nursery() as closing:
                        for connection in self.all_connections():
                            closing.start_soon(connection.muxer.aclose)
                nursery.cancel_scope.cancel()

    # Listening

    @property
    def listening(self) -> list[str]:
        """The multiaddrs of the listeners, with their real ports; wildcards stay wildcards."""
        return self.inbound.listening

    def listen(self, addresses: Iterable[str]) -> None:
        """Make the listeners exactly these. Raises HiveError (conflict, failed) and changes nothing then."""
        self.inbound.listen(addresses)

    def stop_listening(self) -> None:
        """Close the listeners; connections stay, and what is kept waits for the next host."""
        self.inbound.stop()

    def expecting(self, addresses: Iterable[str], peer_id: str) -> AbstractContextManager[None]:
        """Within the block, who comes from one of these addresses is that peer, and our server."""
        taken = {c.address for c in self.all_connections() if c.relay is None and c.peer_id != peer_id}
        return self.inbound.expecting([address for address in addresses if address not in taken], peer_id)

    async def _welcome(self, stream: trio.SocketStream, remote: str, expected: str | None) -> None:
        """Who has come in is a stranger, or the one that we have agreed with to meet."""
        connection = await self._upgrade(stream, expected, remote, initiator=expected is not None)
        if expected is not None:
            connection.punched = True
            return
        self._limit_strangers()
        log.debug("connected", peer=connection.peer_id, remote=remote, by="peer")

    def _limit_strangers(self) -> None:
        strangers = [c for c in self.all_connections() if not c.memberships and not c.initiator]
        for connection in sorted(strangers, key=lambda c: c.opened)[:-MAX_STRANGERS]:
            if self._lines.take("strangers", trio.current_time()):
                log.warning(
                    "too many strangers; the oldest is let go",
                    peer=connection.peer_id,
                    remote=connection.address,
                )
            self.close_soon(connection)

    # Dialing

    async def dial(
        self,
        address: str,
        peer_id: str,
        *,
        initiator: bool = True,
        punch: bool = False,
        from_listener: bool = True,
    ) -> Connection:
        """Connect to ``peer_id`` at one address. Raises DialError.

        ``from_listener``: from a listener's port, where that can be. ``punch``: both sides dial, and only
        from there. Not ``initiator``: this one is the server of all that runs over TCP then.
        """
        try:
            end = parse(address)
        except ValueError as error:
            raise DialError(f"it is no address: {error}") from None
        try:
            with trio.fail_after(CONNECT_SECONDS):
                origins = self.inbound.origins() if from_listener else []
                stream, from_listener = await connect(end, origins, insist=punch)
        except trio.TooSlowError:
            raise DialError("no answer") from None
        except OSError as error:
            raise DialError(why(error)) from None
        connection = await self._upgrade(stream, peer_id, str(end), initiator=initiator)
        connection.from_listener = from_listener
        connection.punched = punch
        log.debug("connected", peer=peer_id, remote=address, by="us")
        return connection

    async def adopt(
        self, stream: MuxedStream, expected: str | None, relay: str, *, initiator: bool
    ) -> Connection:
        """A connection over a circuit through ``relay``. Raises DialError."""
        return await self._upgrade(
            stream, expected, f"/p2p/{relay}/p2p-circuit", initiator=initiator, relay=relay
        )

    async def _upgrade(
        self,
        stream: trio.SocketStream | MuxedStream,
        expected: str | None,
        remote: str,
        *,
        initiator: bool,
        relay: str | None = None,
    ) -> Connection:
        try:
            peer = "" if isinstance(stream, MuxedStream) else str(stream.socket.getpeername()[0])
        except OSError:
            peer = ""
        try:
            secured = await self._upgrader.upgrade(stream, initiator=initiator, expected=expected)
            if expected not in (None, secured.peer_id):
                raise DialError("another node answers")
            if secured.peer_id == self.identity.peer_id:
                raise DialError("this is the node itself")
            if self._blocked(secured.peer_id):
                raise DialError("the peer is blocked")
            if self._nursery is None:
                raise DialError("hived is stopping")
            pipe = Carrier(stream) if isinstance(stream, MuxedStream) else SocketPipe(take(stream))
        except (HandshakeError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            await trio.aclose_forcefully(stream)
            raise DialError(str(error)) from error
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
            raise
        muxer = Muxer(
            self.plane,
            pipe,
            secured.sealer,
            secured.opener,
            initiator=initiator,
            limits=STRANGER,
            plain=secured.plain,
        )
        connection = Connection(
            secured.peer_id, muxer, initiator, remote, secured.handshake_hash, relay=relay
        )
        connection.host = parse(of_socket((peer, 0))).host if peer else ""
        if self.greeter is not None:
            muxer.greeter = partial(self.greeter, connection)
        several = self.connections.setdefault(connection.peer_id, [])
        several.append(connection)
        for oldest in several[:-MAX_OF_ONE_PEER]:
            self.close_soon(oldest)
        self._nursery.start_soon(self._serve, connection)
        return connection

    # Connections and their streams

    def all_connections(self) -> list[Connection]:
        return [connection for several in self.connections.values() for connection in several]

    def find(self, peer_id: str, network: str | None = None) -> Connection | None:
        """The best open connection to a peer, where ``network`` is usable when it is given. From any thread.

        A direct one before one over a relay; of those the newest: a peer that dials again holds what was
        before for dead, and may know better. Of connections made at the same time both ends prefer the one
        that the smaller peer ID dialled.
        """
        several = self.connections.get(peer_id, ())
        found = [c for c in several if c.takes_streams and (network is None or network in c.usable)]
        if len(found) <= 1:
            return found[0] if found else None
        direct = [c for c in found if c.relay is None]
        found = direct or found
        ours = self.identity.peer_id < peer_id
        newest = max(c.opened for c in found)
        found = [c for c in found if c.opened > newest - SAME_TIME_SECONDS]
        return min(found, key=lambda c: (c.initiator != ours, -c.opened))

    def close_soon(self, connection: Connection) -> None:
        """Close a connection without waiting for it."""
        if self._nursery is not None:
            self._nursery.start_soon(connection.muxer.aclose)

    def close_peer(self, peer_id: str) -> None:
        """Close every connection to a peer."""
        for connection in self.connections.get(peer_id, ()):
            self.close_soon(connection)

    async def _serve(self, connection: Connection) -> None:
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(connection.muxer.run)
                for callback in self.on_connected:
                    callback(connection)
                try:
                    while True:
                        stream = await connection.muxer.accept()
                        if not connection.memberships and connection.streams >= MAX_STRANGER_STREAMS:
                            stream.reset()
                            continue
                        connection.streams += 1
                        nursery.start_soon(self._serve_stream, connection, stream)
                except (trio.EndOfChannel, trio.ClosedResourceError, trio.BrokenResourceError):
                    nursery.cancel_scope.cancel()
        finally:
            several = self.connections.get(connection.peer_id, [])
            if connection in several:
                several.remove(connection)
            if not several:
                self.connections.pop(connection.peer_id, None)
            connection.usable.clear()
            for callback in self.on_disconnected:
                callback(connection)
            log.debug("disconnected", peer=connection.peer_id, why=connection.muxer.close_reason)

    async def _serve_stream(self, connection: Connection, stream: MuxedStream) -> None:
        protocol = "?"
        try:
            # A peer that has proved nothing is not even told of the members' protocols.
            of_members = self.member_handlers if connection.memberships else {}
            offered = {**self.handlers, **connection.handlers, **of_members}
            with trio.fail_after(NEGOTIATE_SECONDS):
                protocol = await negotiate(stream, offered)
            await offered[protocol](stream, connection)
            await stream.aclose()
        except STREAM_ERRORS as error:
            log.debug("stream ended", peer=connection.peer_id, protocol=protocol, why=error)
            stream.reset()
        except HiveError as error:
            log.error("serving a stream failed", peer=connection.peer_id, protocol=protocol, why=error.line())
            stream.reset()
        except Exception:
            log.exception("serving a stream failed", peer=connection.peer_id, protocol=protocol)
            stream.reset()
        finally:
            connection.streams -= 1
            # No-op after the ways above; a cancelled handler must not leave the peer waiting.
            stream.reset()


async def _apart(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """A nursery for tasks that a cancelled parent does not end: they go when its own scope is cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.shield = True
        task_status.started(nursery)
        await trio.sleep_forever()
