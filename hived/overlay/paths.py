"""How this node and its members reach each other: what decides on relays, hole punching and addresses.

It puts together who is reachable (``reachability``), the relays that serve this node (``reservations``), this
node as a relay (``relay``), and direct connections in the place of relayed ones (``holepunch``).
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Awaitable, Callable, Iterable

import trio

from ..logs import Log
from .addresses import interface_addresses, is_private, parse
from .circuits import Circuits
from .connection import STREAM_ERRORS, Connection, DialError
from .discovery import Discovery
from .holepunch import HolePuncher
from .host import Host
from .identify import observed
from .identity import CIRCUIT, is_peer_id, outside_relay
from .membership import Membership
from .reachability import Reachability
from .relay import Mode, Relay
from .reservations import RELAY, RELAY_BUSY, Candidate, Reservations
from .sync import Sync

# Of the relays that a record names, so many are tried.
MAX_RELAYS = 4
# Reservations from which on a relay says that it is busy.
BUSY_FROM = 0.7
# A connection that does not answer so long after the network has changed is dead.
PROBE_SECONDS = 3.0
# How often relays in use are asked whether they live, and how long they may take to say so.
CHECK_SECONDS = 5.0
# How often it is looked whether relays that are no members are connected.
OUTSIDE_SECONDS = 10.0

log = Log("hived.overlay.paths")


class Paths:
    """``listening``: the addresses of this node's interfaces and those that its admin announces.

    ``publish`` makes this node's records say what is so now.
    """

    def __init__(
        self,
        host: Host,
        membership: Membership,
        sync: Sync,
        listening: Callable[[], list[str]],
        publish: Callable[[], Awaitable[None]],
    ) -> None:
        # Relays that are no members, by peer ID, as the admin has named them; and whence they see us come.
        self.outside: dict[str, str] = {}
        self._seen_outside: dict[str, str] = {}
        self._host = host
        self._membership = membership
        self._sync = sync
        self._listening = listening
        self._publish = publish
        self._due = trio.Event()
        self.reachability = Reachability(host, membership, listening)
        self.relay = Relay(host, self.addresses)
        self.circuits = Circuits(host, lambda relay: self.reservations.is_held(relay))
        self.reservations = Reservations(self.circuits, self._needs_relay, self.candidates)
        self.discovery = Discovery(
            host.identity.peer_id, lambda: list(membership.keys), lambda: host.listening
        )
        self.puncher = HolePuncher(
            host, self._meeting_addresses, self._public_of, lambda: self.reachability.measured
        )
        self.reachability.on_change += [self.reservations.kick, self._say_soon]
        self.reservations.on_change.append(self._say_soon)
        self._probed = float("-inf")
        membership.on_joined.append(self._joined)
        host.on_connected.append(self._connected)
        host.on_disconnected.append(self._disconnected)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the best paths until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.reachability.run)
            await nursery.start(self.reservations.run)
            await nursery.start(self.puncher.run)
            await nursery.start(self.discovery.run)
            nursery.start_soon(self._keep_outside)
            nursery.start_soon(self._watch_relays)
            task_status.started()
            while True:
                await self._due.wait()
                self._due = trio.Event()
                await self._publish()

    def _needs_relay(self) -> bool:
        alone = self.reachability.state in ("offline", "unknown") and bool(self.outside)
        return self.reachability.needs_relay or alone

    def _say_soon(self) -> None:
        self._due.set()

    def set_mode(self, mode: Mode) -> None:
        """Whom this node relays for."""
        self.relay.set_mode(mode)
        self._say_soon()

    def network_changed(self) -> None:
        """Addresses or routes of this machine are others now, or it has slept: what lives still?"""
        self._probe_all()
        self.reachability.kick()
        self.reservations.kick()
        self.puncher.kick()
        self.discovery.kick()

    # What this node says of itself

    def addresses(self) -> list[str]:
        """What others should dial: a NAT's mapping, too, where they have reached this node by it."""
        found = self._listening()
        return [*found, *(a for a in self.reachability.reached if a not in found and _is_elsewhere(a))]

    def identity_addresses(self) -> list[str]:
        """What goes into the identity string: circuits through relays that anybody may use, too."""
        held = [self.outside[relay] for relay in self.reservations.held if relay in self.outside]
        return [*self.addresses(), *(f"{address}{CIRCUIT}" for address in held)]

    def capabilities(self, network: str) -> list[str]:
        """What this node's record tells members of its relay."""
        if self.relay.mode == "off" or self.reachability.state != "public":
            return []
        busy = len(self.relay.reservations) >= BUSY_FROM * self.relay.limits.reservations
        return [RELAY_BUSY if busy else RELAY]

    def relays(self, network: str) -> list[str]:
        """The relays through which members of a network reach this node: only members of it themselves."""
        held = self.reservations.held.items()
        members = [relay for relay, reserved in held if network in reserved.connection.memberships]
        others = [self.outside[relay] for relay, _ in held if relay in self.outside]
        return sorted(members) + sorted(others)

    # What is known of others

    def relays_of(self, peer_id: str) -> list[str]:
        """The relays that a peer's records name: peer IDs of members, addresses of others."""
        found: list[str] = []
        for network in self._membership.keys:
            record = self._sync.get(network, peer_id)
            for relay in record.relays[:MAX_RELAYS] if record else ():
                who = relay if is_peer_id(relay) else outside_relay(relay)
                if (
                    who is not None
                    and relay not in found
                    and who not in (peer_id, self._host.identity.peer_id)
                ):
                    found.append(relay)
        return found[:MAX_RELAYS]

    def network_of(self, peer_id: str) -> str | None:
        """A network in which a peer is a member, as far as is known."""
        networks = self._membership.keys
        return next((n for n in networks if self._sync.get(n, peer_id) is not None), None)

    def candidates(self) -> Iterable[Candidate]:
        for connection in self._host.all_connections():
            if connection.relay is None and connection.is_open and connection.peer_id in self.outside:
                yield Candidate(connection)
            elif connection.relay is None and connection.is_open:
                said = self._said_of_relay(connection)
                if said is not None:
                    yield Candidate(connection, said == RELAY_BUSY)

    def _said_of_relay(self, connection: Connection) -> str | None:
        for network in connection.usable:
            record = self._sync.get(network, connection.peer_id)
            for said in (RELAY, RELAY_BUSY):
                if record is not None and said in record.capabilities:
                    return said
        return None

    def _meeting_addresses(self) -> list[str]:
        """Where another node might meet this one: how it looks from outside, and its own addresses."""
        seen = [*self.reachability.mapped, *self._seen_outside.values()]
        return list(dict.fromkeys([*seen, *self.addresses()]))

    def _public_of(self, peer_id: str) -> list[str]:
        """Addresses of a peer that others outside its site can dial, as it says."""
        records = (self._sync.get(network, peer_id) for network in self._membership.keys)
        found = [a for record in records if record for a in record.addresses if not is_private(a)]
        return list(dict.fromkeys(found))

    def why(self, peer_id: str, connection: Connection | None) -> str:
        """Why a peer is reached as it is, for people."""
        if connection is None:
            relays = self.relays_of(peer_id)
            return "no address answers, and it names no relay" if not relays else ""
        if connection.relay is None:
            if connection.punched:
                return "a hole was punched through the NATs between"
            return "this node dialled it" if connection.initiator else "it dialled this node"
        failed = self.puncher.errors.get(peer_id)
        return failed or "no address of it answers; hole punching goes on"

    # What happens

    async def _watch_relays(self) -> None:
        """Ask relays in use whether they live: one that is gone without a word is missed by all behind it."""
        while True:
            await trio.sleep(CHECK_SECONDS)
            live = [c for c in self._host.all_connections() if c.is_open]
            used = {c.relay for c in live if c.relay} | set(self.reservations.held)
            for connection in live:
                if connection.relay is None and connection.peer_id in used:
                    connection.muxer.probe(CHECK_SECONDS)

    def _probe_all(self) -> None:
        self._probed = time.monotonic()
        for connection in self._host.all_connections():
            connection.muxer.probe(PROBE_SECONDS)

    def _connected(self, connection: Connection) -> None:
        """Who connects again may have lost what is open here still."""
        for other in self._host.connections.get(connection.peer_id, ()):
            if other is not connection:
                other.muxer.probe(PROBE_SECONDS)

    async def _keep_outside(self) -> None:
        """While others cannot dial this node, stay connected to the relays that the admin has named."""
        while True:
            for relay, address in list(self.outside.items()) if self._needs_relay() else ():
                if self._host.find(relay) is None:
                    await self._to_outside(relay, address)
            await trio.sleep(OUTSIDE_SECONDS)

    async def _to_outside(self, relay: str, address: str) -> None:
        try:
            connection = await self._host.dial(address, relay)
            self.circuits.welcome(connection)
            self.reservations.kick()
            if connection.from_listener:
                self._seen_outside[relay] = await observed(connection)
        except (DialError, *STREAM_ERRORS) as error:
            log.info("a named relay is not reached", address=address, why=error)

    def _joined(self, connection: Connection, network: str) -> None:
        self.puncher.joined(connection)
        self.reservations.kick()

    def _disconnected(self, connection: Connection) -> None:
        if self.reservations.is_held(connection.peer_id):
            self.reservations.kick()
        if connection.muxer.given_up and time.monotonic() - self._probed > PROBE_SECONDS:
            # It may be the network that is another one, and no event of this machine has told.
            self._probe_all()
            self.reachability.kick()
        if connection.relay is None:
            self.puncher.lost(connection.peer_id)
        if connection.peer_id not in self._host.connections:
            self.puncher.errors.pop(connection.peer_id, None)


def _is_elsewhere(address: str) -> bool:
    """Whether an address is a NAT's, and none of this machine: of those the listeners tell."""
    host = parse(address).host
    try:
        if ipaddress.ip_address(host).is_loopback:
            return False
    except ValueError:
        return False  # a name, which was announced
    return host not in interface_addresses()
