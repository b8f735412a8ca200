"""Relayed connections replaced by direct ones: DCUtR over TCP (libp2p specs, relay/DCUtR.md).

Both sides dial each other's addresses at the same time, from their listeners' ports, so that each NAT takes
the other's SYN for the answer to its own. Whoever was dialled through the relay begins, and is the server of
what runs over the new connection.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import trio
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from multiaddr import Multiaddr

from ..logs import Log
from ..transport.muxstream import MuxedStream
from .addresses import parse
from .circuitwire import DCUTR, receive, send
from .connection import STREAM_ERRORS, Connection, DialError
from .host import Host
from .quota import Allowance
from .wire import ProtocolError

log = Log("hived.overlay.holepunch")

MESSAGE_SECONDS = 10.0
PUNCH_SECONDS = 5.0
# Between two dials of one address: a NAT that answers with RST refuses at once.
STEP_SECONDS = 0.15
QUICK_TRIES = 3
QUICK_PAUSE = 0.5
# So often one of the two may not know yet how it looks from outside.
MAX_UNREADY = 12
FIRST_PAUSE, MAX_PAUSE = 15.0, 600.0
# At once; others wait for their turn.
MAX_TRIES = 64
_MAX_ADDRESSES = 12
# Dials of one address that refuses, in one try.
_MAX_REFUSED = 12
# Of those that a peer says it is dialled on, one after the other.
_MAX_PUBLIC = 3


@dataclass(eq=False)
class _Try:
    """One try with a peer: with a scope ours, which may be cancelled, else one that it has asked for."""

    ours: trio.CancelScope | None = None
    over: trio.Event = field(default_factory=trio.Event)


class HolePuncher:
    """``addresses``: where this node might be met; ``public``: where a peer says that it can be dialled.

    ``ready``: whether this node knows how it looks from outside, or that nobody tells. What is dialled in
    vain leaves an entry in this side's router; a later SYN of the other side that it lets in may get to our
    listener then, whose answer it takes for a wrong one: the first try should be the one that succeeds.
    ``errors`` has what went wrong last, by peer.
    """

    def __init__(
        self,
        host: Host,
        addresses: Callable[[], Iterable[str]],
        public: Callable[[str], Iterable[str]] = lambda peer_id: (),
        ready: Callable[[], bool] = lambda: True,
        rng: random.Random | None = None,
    ) -> None:
        self.errors: dict[str, str] = {}
        # Told of a peer with a direct connection that nobody is a member on yet.
        self.on_direct: list[Callable[[str], None]] = []
        self._host = host
        self._addresses = addresses
        self._public = public
        self._ready = ready
        self._rng = rng or random.Random()
        self._nursery: trio.Nursery | None = None
        self._running: dict[str, trio.Event] = {}
        self._tries: dict[str, _Try] = {}
        # What a peer names is dialled: it shall not have us dial without end.
        self._served = Allowance(burst=12, rate=0.1)
        self._served_all = Allowance(burst=120, rate=4)
        self._dials = trio.CapacityLimiter(MAX_TRIES)
        host.member_handlers[DCUTR] = self._serve

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Punch for relayed connections until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def joined(self, connection: Connection) -> None:
        """A membership was made on a connection: where it came over a relay, try for a direct one."""
        if connection.relay is None or connection.initiator or self._nursery is None:
            return
        self._begin_trying(connection.peer_id)

    def lost(self, peer_id: str) -> None:
        """A direct connection is gone: a relayed one that is left wants another."""
        if self._nursery is not None and self._relayed(peer_id) is not None:
            self._begin_trying(peer_id)

    def _begin_trying(self, peer_id: str) -> None:
        running = self._running.get(peer_id)
        if running is not None:
            # The relay is another one; what was arranged over the former is cut off.
            running.set()
        elif self._nursery is not None:
            self._running[peer_id] = trio.Event()
            self._nursery.start_soon(self._keep_trying, peer_id)

    def _relayed(self, peer_id: str) -> Connection | None:
        """The newest connection over which this node is the one to begin."""
        found = [
            connection
            for connection in self._host.connections.get(peer_id, ())
            if connection.relay is not None
            and not connection.initiator
            and connection.takes_streams
            and connection.memberships
        ]
        return found[-1] if found else None

    def kick(self) -> None:
        """The network has changed: what failed before may succeed now."""
        for kick in self._running.values():
            kick.set()

    def _direct(self, peer_id: str) -> bool:
        found = self._host.find(peer_id)
        return found is not None and found.relay is None

    async def _keep_trying(self, peer_id: str) -> None:
        """As long as there are only relayed connections: three times soon, then now and then."""
        tries, unready, pause = 0, 0, FIRST_PAUSE
        try:
            while not self._direct(peer_id):
                connection = self._relayed(peer_id)
                if connection is None:
                    return
                kick = self._running[peer_id] = trio.Event()
                arranged = False
                if self._ready() or unready >= MAX_UNREADY:
                    await self._dial_public(peer_id)
                    if not self._direct(peer_id) and peer_id not in self._tries:
                        arranged = await self._try(peer_id, connection)
                if peer_id in self._tries:
                    arranged = True
                    await self._tries[peer_id].over.wait()
                if self._direct(peer_id):
                    return
                if arranged or unready >= MAX_UNREADY:
                    tries += 1
                else:
                    unready += 1
                wait = QUICK_PAUSE if tries < QUICK_TRIES else pause * self._rng.uniform(0.75, 1.25)
                with trio.move_on_after(wait):
                    await kick.wait()
                if kick.is_set():
                    tries, pause = 0, FIRST_PAUSE
                elif tries >= QUICK_TRIES:
                    pause = min(2 * pause, MAX_PAUSE)
        finally:
            self._running.pop(peer_id, None)

    async def _try(self, peer_id: str, connection: Connection) -> bool:
        """One try of ours, unless the peer's takes its place; whether it could be arranged."""
        arranged = False
        with trio.CancelScope() as scope:
            mine = self._begin(peer_id, scope)
            try:
                arranged = await self._punch(connection)
            finally:
                self._end(peer_id, mine)
        return arranged

    def _tell(self, peer_id: str) -> None:
        for callback in self.on_direct:
            callback(peer_id)

    async def _dial_public(self, peer_id: str) -> None:
        """What needs no punching is dialled first, by one side alone."""
        for address in list(self._public(peer_id))[:_MAX_PUBLIC]:
            try:
                # From any port: an entry for the listener's own is for punching.
                await self._host.dial(address, peer_id, from_listener=False)
            except DialError as error:
                log.debug("no direct way", peer=peer_id, address=address, why=error)
            else:
                self._tell(peer_id)
                return

    def _begin(self, peer_id: str, ours: trio.CancelScope | None = None) -> _Try:
        """The only try with this peer until its end: two at a time would take each other's SYNs."""
        mine = self._tries[peer_id] = _Try(ours)
        return mine

    def _end(self, peer_id: str, mine: _Try) -> None:
        if self._tries.get(peer_id) is mine:
            del self._tries[peer_id]
        mine.over.set()

    def _make_way(self, peer_id: str) -> None:
        """Both may have been dialled, each over another relay, and begin: the smaller peer ID's try goes on.

        Raises ProtocolError where it is not the peer's turn.
        """
        running = self._tries.get(peer_id)
        if running is not None and (running.ours is None or self._host.identity.peer_id < peer_id):
            raise ProtocolError("there is a try at hole punching already")
        now = trio.current_time()
        if not self._served.take(peer_id, now) or not self._served_all.take("", now):
            raise ProtocolError("too many tries at hole punching")
        if running is not None and running.ours is not None:
            running.ours.cancel()

    async def _punch(self, connection: Connection) -> bool:
        """B of the specification: ask for addresses, measure, say when, and dial half a round trip later.

        Whether it could be arranged.
        """
        peer_id = connection.peer_id
        try:
            with trio.fail_after(MESSAGE_SECONDS):
                stream = await connection.open_stream(DCUTR)
                try:
                    began = time.monotonic()
                    await send(stream, self._connect_message())
                    theirs = _addresses_in(await receive(stream, HolePunch()), HolePunch.CONNECT)
                    rtt = time.monotonic() - began
                    await send(stream, HolePunch(type=HolePunch.SYNC))
                    await trio.sleep(rtt / 2)
                finally:
                    await stream.aclose()
        except STREAM_ERRORS as error:
            self.errors[peer_id] = f"hole punching could not be arranged: {error}"
            return False
        await self._dial_all(peer_id, theirs, initiator=False)
        return True

    async def _serve(self, stream: MuxedStream, connection: Connection) -> None:
        """A of the specification: answer with addresses, and dial as soon as it is time."""
        if connection.relay is None:
            raise ProtocolError("hole punching on a direct connection")
        peer_id = connection.peer_id
        with trio.fail_after(MESSAGE_SECONDS):
            theirs = _addresses_in(await receive(stream, HolePunch()), HolePunch.CONNECT)
            if not self._ready():
                raise ProtocolError("this node does not know yet how it looks from outside")
            self._make_way(peer_id)
            mine = self._begin(peer_id)
            try:
                await send(stream, self._connect_message())
                _addresses_in(await receive(stream, HolePunch()), HolePunch.SYNC)
            except BaseException:
                self._end(peer_id, mine)
                raise
        if self._nursery is not None:
            # Not here: the relay may go meanwhile.
            self._nursery.start_soon(self._dial_as_client, peer_id, theirs, mine)
        else:
            self._end(peer_id, mine)

    async def _dial_as_client(self, peer_id: str, addresses: list[str], mine: _Try) -> None:
        try:
            await self._dial_all(peer_id, addresses, initiator=True)
        finally:
            self._end(peer_id, mine)

    def _connect_message(self) -> HolePunch:
        own = list(dict.fromkeys(self._addresses()))[:_MAX_ADDRESSES]
        return HolePunch(type=HolePunch.CONNECT, ObsAddrs=[Multiaddr(address).to_bytes() for address in own])

    async def _dial_all(self, peer_id: str, addresses: list[str], *, initiator: bool) -> None:
        """Dial all of a peer's addresses, again and again for some seconds, until one has answered."""
        if not addresses:
            self.errors[peer_id] = "the other node names no address for hole punching"
            return
        whys: dict[str, str] = {}
        # Where their SYN gets to our listener instead of our socket, the roles are the same.
        expected = self._host.expecting(addresses if initiator else (), peer_id)
        with trio.move_on_after(PUNCH_SECONDS), expected:
            async with self._dials, trio.open_nursery() as nursery:

                async def one(address: str) -> None:
                    for _ in range(_MAX_REFUSED):
                        if self._direct(peer_id):
                            break
                        try:
                            await self._host.dial(address, peer_id, initiator=initiator, punch=True)
                        except DialError as error:
                            whys[address] = str(error)
                            await trio.sleep(STEP_SECONDS * self._rng.uniform(0.5, 1.5))
                        else:
                            break
                    else:
                        return
                    nursery.cancel_scope.cancel()

                for address in addresses:
                    nursery.start_soon(one, address)
        if self._direct(peer_id):
            self.errors.pop(peer_id, None)
            log.info("reached directly", peer=peer_id)
            self._tell(peer_id)
        else:
            said = "; ".join(f"{address}: {whys.get(address, 'no answer')}" for address in addresses[:4])
            self.errors[peer_id] = f"hole punching failed: {said}"
            log.debug("hole punching failed", peer=peer_id, why=said)


def _addresses_in(message: HolePunch, kind: HolePunch.Type.ValueType) -> list[str]:
    """The TCP addresses of a message of this kind. Raises ProtocolError for another one."""
    if message.type != kind:
        raise ProtocolError("another message of hole punching was expected")
    found: list[str] = []
    for data in message.ObsAddrs[:_MAX_ADDRESSES]:
        try:
            end = parse(str(Multiaddr(data)))
        except Exception:  # multiaddr parsers raise unrelated kinds
            continue
        if end.kind.startswith("ip") and str(end) not in found:
            found.append(str(end))
    return found
