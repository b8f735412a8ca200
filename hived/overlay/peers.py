"""The dialer: keeps connections to the peers this node wants, and makes one on demand.

One keeper for each peer dials its addresses, joins the networks it should be in, waits
for the connection to end, and begins again, for ever, with a jittered backoff.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import trio

from ..errors import HiveError, Kind, denied, unreachable
from ..logs import Log, who
from ..transport.muxstream import MuxedStream
from .connection import STREAM_ERRORS, Connection, DialError
from .dialer import Dialer, Tries, circuit_address
from .host import Host
from .membership import JoinDelayedError, JoinRefusedError, Membership
from .quota import Allowance

log = Log("hived.overlay.peers")

FIRST_RETRY = 0.25
MAX_RETRY = 5.0
MAX_RETRY_DISTANT = 60.0
MAX_REFUSED = 3
# About two minutes of trying; then another member may take a neighbour's place.
FAIR_TRIES = 9
ON_DEMAND_SECONDS = 10.0
ACCEPTOR_GRACE = 2.0
DUPLICATE_GRACE = 10.0


@dataclass(eq=False)
class Link:
    """What the keeper of one peer knows. ``refused`` is by network."""

    peer_id: str
    kick: trio.Event = field(default_factory=trio.Event)
    changed: trio.Event = field(default_factory=trio.Event)
    begun: int = 0
    ended: int = 0
    backoff: float = FIRST_RETRY
    tries: Tries = field(default_factory=Tries)
    join_errors: dict[str, str] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    error: str = ""
    scope: trio.CancelScope | None = None

    @property
    def errors(self) -> dict[str, str]:
        """The last error of each way to it."""
        return self.tries.errors

    def notify(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


@dataclass(frozen=True)
class Wishes:
    """What the rest of the node tells the dialer, asked anew each time.

    ``addresses`` of a peer, best first; ``networks`` to try on it; ``wanted`` peers, where
    True means important (registered, or behind a proxy): they are retried more often.
    ``name``: what a peer calls itself, "" when that is not known.
    """

    addresses: Callable[[str], Iterable[str]]
    networks: Callable[[str], Iterable[str]]
    wanted: Callable[[], dict[str, bool]]
    refused: Callable[[str, str, int], None]
    name: Callable[[str], str] = lambda peer_id: ""


class Peers:
    """Keepers for the wanted peers; :meth:`connection` for whoever needs one now."""

    def __init__(
        self, host: Host, membership: Membership, wishes: Wishes, dialer: Dialer | None = None
    ) -> None:
        self.links: dict[str, Link] = {}
        self.contacts: dict[str, float] = {}
        self._host = host
        self._membership = membership
        self._wishes = wishes
        self._important: dict[str, bool] = {}
        # Lines about one peer's lost connections and, since an identity costs a member nothing, about all;
        # and how many were not written since the last.
        self._lines = Allowance(burst=10, rate=1 / 300)
        self._all_lines = Allowance(burst=200, rate=1 / 30)
        self._unsaid = 0
        self._dialer = dialer or Dialer(host, wishes.addresses)
        self._nursery: trio.Nursery | None = None
        host.on_connected.append(self._connected)
        host.on_disconnected.append(self._disconnected)
        membership.on_joined.append(self._joined)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep connections until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                self.refresh()
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def refresh(self) -> None:
        """The wishes changed: start keepers that are missing, end those no longer wanted."""
        self._important = self._wishes.wanted()
        for peer_id in self._important:
            self._start(peer_id)
        for peer_id, link in list(self.links.items()):
            if peer_id not in self._important and not self._host.connections.get(peer_id):
                self._stop(link)

    def linked(self) -> set[str]:
        """Peers that are connected, or that were not tried for long yet."""
        return {p for p, link in self.links.items() if self._host.find(p) or link.begun <= FAIR_TRIES}

    def kick(self, peer_id: str | None = None, *, forgive: bool = False) -> None:
        """Try now: one peer, or all of them. ``forgive`` forgets refused joins (the user said so)."""
        for link in list(self.links.values()) if peer_id is None else filter(None, [self.links.get(peer_id)]):
            if forgive:
                link.refused.clear()
                link.join_errors.clear()
            link.backoff = FIRST_RETRY
            link.kick.set()

    async def connection(self, peer_id: str, network: str) -> Connection:
        """A connection to a peer where ``network`` is usable.

        Raises HiveError: unreachable with the reason, or denied when the join was refused.
        """
        found = self._host.find(peer_id, network)
        if found is not None:
            return found
        if peer_id == self._host.identity.peer_id:
            raise unreachable("connecting failed", "this is the node itself", "Name another node")
        link = self._start(peer_id)
        if link is None:
            raise unreachable(f"connecting to {peer_id} failed", "hived is stopping, or the peer is blocked")
        # An attempt under way began before our kick, so it is the next one that counts.
        awaited = link.begun + 1
        link.kick.set()
        with trio.move_on_after(ON_DEMAND_SECONDS):
            while True:
                changed = link.changed
                found = self._host.find(peer_id, network)
                if found is not None:
                    return found
                if link.ended >= awaited:
                    break
                await changed.wait()
        raise self._failure(link, network)

    async def open_stream(self, peer_id: str, network: str, protocol: str) -> tuple[MuxedStream, Connection]:
        """A stream to a member. Raises HiveError (unreachable, denied)."""
        connection = await self.connection(peer_id, network)
        try:
            return await connection.open_stream(protocol), connection
        except STREAM_ERRORS as error:
            raise unreachable(
                f"opening a stream to {peer_id} failed", str(error) or type(error).__name__
            ) from error

    def _failure(self, link: Link, network: str) -> HiveError:
        if network in link.join_errors:
            return denied(
                f"joining {network} through {link.peer_id} failed",
                link.join_errors[network],
                "Check the network's name and password on both nodes",
            )
        why = link.error or "no answer"
        return HiveError(
            Kind.UNREACHABLE,
            f"connecting to {link.peer_id} failed",
            why,
            f"Check that hived runs there and that its address is right: hivectl nodes show {link.peer_id}",
        )

    # Keepers

    def _start(self, peer_id: str) -> Link | None:
        link = self.links.get(peer_id)
        if link is None and self._nursery is not None and peer_id != self._host.identity.peer_id:
            link = self.links[peer_id] = Link(peer_id)
            self._nursery.start_soon(self._keep, link)
        return link

    def _stop(self, link: Link) -> None:
        if link.scope is not None:
            link.scope.cancel()
        self.links.pop(link.peer_id, None)

    async def _keep(self, link: Link) -> None:
        with trio.CancelScope() as link.scope:
            while True:
                link.kick = trio.Event()
                link.begun += 1
                pause = await self._attempt(link)
                link.ended = link.begun
                link.notify()
                if not self._host.connections.get(link.peer_id) and link.peer_id not in self._important:
                    self.links.pop(link.peer_id, None)
                    return
                with trio.move_on_after(pause):
                    await link.kick.wait()

    async def _attempt(self, link: Link) -> float:
        """Connect where there is no connection, join what is missing; seconds until the next try."""
        connection = self._host.find(link.peer_id)
        if connection is None:
            if link.refused and not self._joinable(link):
                # All was refused: a connection would serve nobody. Until told, or until it comes to us.
                link.error = next(iter(link.join_errors.values()), "it refused us")
                return float("inf")
            try:
                connection = await self._dial(link)
            except DialError as error:
                if link.error != str(error):
                    log.info("cannot reach a peer", **self._who(link.peer_id), why=error)
                link.error = str(error)
                return self._back_off(link)
        link.error = ""
        if not connection.initiator and not connection.usable:
            # Who dialled joins; we step in only where it does not.
            with trio.move_on_after(max(0.0, ACCEPTOR_GRACE - (time.time() - connection.opened))):
                while connection.is_open and not connection.usable:
                    await link.changed.wait()
        if not await self._join_all(link, connection):
            return self._back_off(link)
        if connection.initiator and not connection.usable:
            # Nothing (any more) to join there: a connection of ours that serves nobody.
            self._host.close_soon(connection)
        link.backoff = FIRST_RETRY
        return float("inf")

    def _joinable(self, link: Link) -> list[str]:
        """The networks that are worth a try on a peer."""
        return [n for n in self._wishes.networks(link.peer_id) if link.refused.get(n, 0) < MAX_REFUSED]

    def _back_off(self, link: Link) -> float:
        ceiling = MAX_RETRY if self._important.get(link.peer_id) else MAX_RETRY_DISTANT
        pause = link.backoff * random.uniform(0.5, 1.0)
        link.backoff = min(link.backoff * 2, ceiling)
        return pause

    async def _join_all(self, link: Link, connection: Connection) -> bool:
        """Join each network that is missing on the connection; False when one is worth another try."""
        complete = True
        for network in self._joinable(link):
            if network in connection.usable:
                continue
            try:
                await self._membership.join(connection, network)
            except JoinRefusedError:
                count = link.refused[network] = link.refused.get(network, 0) + 1
                link.join_errors[network] = "the password differs, or that node is not in the network"
                log.warning(
                    "a peer refused us",
                    network=network,
                    **self._who(link.peer_id),
                    times=count,
                    further="no, until registered again" if count >= MAX_REFUSED else "yes",
                )
                self._wishes.refused(link.peer_id, network, count)
                complete = False
            except JoinDelayedError as error:
                link.error = str(error)
                link.backoff = max(link.backoff, error.seconds)
                complete = False
            except (*STREAM_ERRORS, KeyError) as error:
                log.debug("a join failed", network=network, peer=link.peer_id, why=repr(error))
                link.error = link.error or "the connection ended while joining"
                complete = False
            else:
                link.refused.pop(network, None)
                link.join_errors.pop(network, None)
        return complete

    async def dial(self, peer_id: str) -> Connection:
        """A connection to a peer that a keeper is there for, joined or not. Raises DialError."""
        link = self.links.get(peer_id)
        if link is None:
            raise DialError("no address of it is known")
        return await self._dial(link)

    async def _dial(self, link: Link) -> Connection:
        return await self._dialer.dial(link.peer_id, link.tries)

    # What the host tells

    def _connected(self, connection: Connection) -> None:
        link = self._start(connection.peer_id) if connection.peer_id in self._important else None
        if link is not None and not connection.initiator:
            link.kick.set()

    def _joined(self, connection: Connection, network: str) -> None:
        self.contacts[connection.peer_id] = time.time()
        link = self.links.get(connection.peer_id)
        if link is not None:
            link.error = ""
            link.tries.relayed = connection.relay is not None
            way = circuit_address(connection.relay) if connection.relay else connection.address
            link.errors.pop(way, None)
            link.join_errors.pop(network, None)
            link.refused.pop(network, None)
            link.notify()
        if self._nursery is not None:
            self._nursery.start_soon(self._drop_duplicate, connection)

    def _disconnected(self, connection: Connection) -> None:
        if connection.served:
            before = self.contacts.get(connection.peer_id, 0.0)
            self.contacts[connection.peer_id] = max(before, connection.heard)
            if connection.muxer.lost:
                self._lost(connection)
        link = self.links.get(connection.peer_id)
        if link is not None:
            if connection.relay is not None and (connection.muxer.given_up or not connection.memberships):
                link.errors[circuit_address(connection.relay)] = "nothing came through it"
            link.notify()
            if connection.relay is not None and not connection.initiator and self._nursery is not None:
                # With a relay many lose each other at once. Whoever had dialled does so again, and alone.
                self._nursery.start_soon(self._kick_later, link)
            elif connection.memberships or not connection.initiator:
                link.kick.set()

    async def _kick_later(self, link: Link) -> None:
        await trio.sleep(ACCEPTOR_GRACE)
        link.kick.set()

    def _lost(self, connection: Connection) -> None:
        """Say why a member's connection is gone and what went with it; of one that flaps, now and then."""
        peer_id, muxer = connection.peer_id, connection.muxer
        now = trio.current_time()
        if not (self._lines.take(peer_id, now) and self._all_lines.take("", now)):
            self._unsaid += 1
            return
        cut, proxied = muxer.tunnel.cut, muxer.tunnel.cut_proxied
        fields: dict[str, object] = {
            **self._who(peer_id),
            "why": muxer.close_reason,
            "stood": f"{connection.stood:.0f} s",
            "streams_cut": cut,
            "proxied": proxied,
        }
        if self._unsaid:
            fields["more_before"], self._unsaid = self._unsaid, 0
        (log.warning if proxied else log.info)("connection lost", **fields)

    def _who(self, peer_id: str) -> dict[str, str]:
        return who(peer_id, self._wishes.name(peer_id))

    async def _drop_duplicate(self, connection: Connection) -> None:
        """Where both ends dialled, the connection that neither prefers goes once it is idle.

        Its dialer closes it.
        """
        if not connection.initiator:
            return
        while connection.is_open:
            await trio.sleep(DUPLICATE_GRACE)
            better = self._host.find(connection.peer_id)
            if better is None or better is connection:
                return
            if connection.usable <= better.usable and connection.muxer.stream_count == 0:
                await connection.muxer.aclose()
                return
