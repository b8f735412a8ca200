"""How this node is reached from outside, as its members see it.

A member tells from which address a connection of ours came: where that left from the listener's port, it is
the NAT's mapping of the listener itself. And it dials back, from a port that nothing has been sent to, so
that only who is really reachable answers. Two members are enough to tell a cone from a symmetric NAT.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec
import trio
from libp2p.crypto.ed25519 import create_new_key_pair

from ..logs import Log
from ..transport.multistream import HandshakeError
from ..transport.muxstream import MuxedStream
from ..transport.secure import Upgrader
from .addresses import Endpoint, is_private, parse
from .connection import STREAM_ERRORS, Connection
from .host import Host
from .membership import Membership
from .networkkeys import network_id
from .quota import Allowance
from .sockets import connect
from .wire import Message, receive, send

log = Log("hived.overlay.reachability")

REACH = "/hive/reach/1.0.0"
State = Literal["unknown", "public", "cone", "symmetric", "offline"]

DIAL_SECONDS = 2.0
ASK_SECONDS = 8.0
# So many members are asked in a round.
ASKED = 4
SETTLE_SECONDS = 0.5
# After a measurement that told something, until members that come and go are a reason for the next one.
FLOOR_SECONDS = 10.0
AGAIN_SECONDS = 300.0
OFFLINE_AGAIN_SECONDS = 30.0
_MAX_DIALLED = 4
_LIMIT = 4096


class Ask(Message):
    """The network in which the asker is a member, and addresses of its own to dial back."""

    network: bytes
    dial: list[str] = msgspec.field(default_factory=list)


class Told(Message):
    """Whence the asker's connection came ("" where it was dialled), and which addresses it answered on."""

    observed: str = ""
    reached: list[str] = msgspec.field(default_factory=list)
    # Whether it has dialled back: who is asked too often does not.
    tried: bool = False


@dataclass(frozen=True)
class Report:
    """What one member has told."""

    member: str
    remote: str
    from_listener: bool
    told: Told


def classify(
    reports: Iterable[Report], own: Iterable[str] | None = None
) -> tuple[State, list[str], list[str]]:
    """The state, the addresses that outsiders reach, and the mappings that they see, out of members' reports.

    ``own``: the addresses that they were asked about.
    Members on a network of private addresses say nothing about what those outside find.
    """
    reports = list(reports)
    outside = [report for report in reports if not _private(report.remote)]
    telling = outside or reports
    tried = sum(report.told.tried or bool(report.told.reached) for report in telling)
    by = Counter(
        address for report in telling for address in set(report.told.reached) if _counts(address, outside)
    )
    # At least half of those that have tried must agree: one that lies is not believed against two.
    reached = {address for address, count in by.items() if 2 * count >= tried}
    if own is not None:
        # No one member makes this node give out somebody else's address as its own.
        hosts = {_host(text) for text in (*own, *(report.told.observed for report in reports)) if text}
        reached = {address for address in reached if _host(address) in hosts or by[address] > 1}
    seen = {
        report.told.observed: _host(report.remote)
        for report in telling
        if report.from_listener and report.told.observed
    }
    if reached:
        return "public", sorted(reached), sorted(seen)
    by_version = {
        version: [address for address in seen if parse(address).kind == f"ip{version}"] for version in (4, 6)
    }
    observers = {
        version: {
            _host(report.remote)
            for report in telling
            if report.from_listener and report.told.observed in by_version[version]
        }
        for version in (4, 6)
    }
    state: State = "unknown"
    for version in (6, 4):
        if len(by_version[version]) > 1 and not _agree(by_version[version], telling):
            state = "symmetric"
        elif by_version[version] and len(observers[version]) > 1:
            state = "cone"
    return state, [], sorted(seen)


def _agree(mappings: list[str], reports: list[Report]) -> bool:
    """Whether more than half of those that see a mapping, and two at least, see one and the same."""
    told = [r.told.observed for r in reports if r.from_listener and r.told.observed in mappings]
    most = max(Counter(told).values())
    return most >= 2 and 2 * most > len(told)


def _private(address: str) -> bool:
    try:
        return is_private(address)
    except ValueError:
        return True


def _counts(address: str, outside: list[Report]) -> bool:
    return not (outside and _private(address))


def _host(address: str) -> str:
    return parse(address).host


class Reachability:
    """Asks members, and answers them. ``addresses``: what this node would tell others to dial.

    ``state`` and what goes with it: ``reached``, addresses on which members have dialled back; ``mapped``,
    how the listeners look from outside. ``on_change`` is called when any of them has changed.
    """

    def __init__(self, host: Host, membership: Membership, addresses: Callable[[], list[str]]) -> None:
        self.state: State = "unknown"
        self.reached: list[str] = []
        self.mapped: list[str] = []
        self.measured = False
        self.on_change: list[Callable[[], None]] = []
        self._host = host
        self._membership = membership
        self._addresses = addresses
        self._kick = trio.Event()
        self._due = trio.Event()
        self._served = Allowance(burst=6, rate=1 / 20)
        self._served_all = Allowance(burst=60, rate=2)
        # Whoever dials back is a stranger: the connection of its own goes on.
        self._upgrader = Upgrader(create_new_key_pair(secrets.token_bytes(32)))
        host.member_handlers[REACH] = self._serve
        membership.on_joined.append(lambda connection, network: self._members_changed())
        host.on_disconnected.append(lambda connection: self._members_changed() if connection.served else None)

    @property
    def needs_relay(self) -> bool:
        """Others cannot dial this node, as far as is known."""
        return self.measured and self.state not in ("public", "offline")

    def forget(self) -> None:
        """The listeners are others now: what was known of them holds no more."""
        self.reached, self.mapped = [], []
        self.kick()

    def kick(self) -> None:
        """Something has changed: ask again."""
        self._kick.set()

    def _members_changed(self) -> None:
        """Others may be asked now: at once where nothing is known yet, else not again and again."""
        self._due.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask now and then, and after each change, until cancelled."""
        task_status.started()
        while True:
            pause = OFFLINE_AGAIN_SECONDS if self.state in ("offline", "unknown") else AGAIN_SECONDS
            floor = 0.0 if self.state in ("offline", "unknown") else FLOOR_SECONDS
            with trio.move_on_after(pause):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._await_members, nursery.cancel_scope, floor)
                    await self._kick.wait()
                    nursery.cancel_scope.cancel()
                await trio.sleep(SETTLE_SECONDS)
            self._kick, self._due = trio.Event(), trio.Event()
            await self.measure()

    async def _await_members(self, scope: trio.CancelScope, floor: float) -> None:
        await trio.sleep(floor)
        await self._due.wait()
        scope.cancel()

    async def measure(self) -> list[Report]:
        """Ask some members at once, and take over what they say."""
        chosen = self._whom()
        reports: list[Report] = []

        async def ask(connection: Connection, network: str) -> None:
            try:
                reports.append(await self._ask(connection, network))
            except STREAM_ERRORS as error:
                log.debug("a member does not say how it sees us", peer=connection.peer_id, why=error)

        async with trio.open_nursery() as nursery:
            for connection, network in chosen:
                nursery.start_soon(ask, connection, network)
        if chosen and not reports:
            return reports
        found = classify(reports, self._addresses()) if chosen else ("offline", [], [])
        if (
            found[0] == "unknown"
            and self.state in ("cone", "symmetric")
            and set(found[2]) <= set(self.mapped)
        ):
            # Fewer have answered than before, and what they say is the same.
            return reports
        if (
            self.state == "public"
            and reports
            and not any(report.told.tried or report.told.reached for report in reports)
        ):
            # Nobody has dialled back: they have been asked too often.
            return reports
        self.measured = True
        before = self.state, self.reached, self.mapped
        self.state, self.reached, self.mapped = found
        if before != found:
            log.info(
                "reachability",
                state=self.state,
                reached=" ".join(self.reached),
                seen_as=" ".join(self.mapped),
            )
            for callback in self.on_change:
                callback()
        return reports

    def _whom(self) -> list[tuple[Connection, str]]:
        """Members with a direct connection: those at different places first, ones that we dialled first."""
        found: dict[str, tuple[Connection, str]] = {}
        for network in self._membership.keys:
            for connection in self._membership.members(network):
                if connection.relay is None:
                    found.setdefault(connection.peer_id, (connection, network))
        ranked = sorted(
            found.values(), key=lambda item: (_private(item[0].address), not item[0].from_listener)
        )
        places: dict[str, tuple[Connection, str]] = {}
        others = []
        for item in ranked:
            place = _host(item[0].address)
            if place in places:
                others.append(item)
            else:
                places[place] = item
        return [*places.values(), *others][:ASKED]

    async def _ask(self, connection: Connection, network: str) -> Report:
        with trio.fail_after(ASK_SECONDS):
            stream = await connection.open_stream(REACH)
            try:
                await send(stream, Ask(network=network_id(network), dial=self._addresses()[:16]))
                told = await receive(stream, Told, _LIMIT)
                await stream.aclose()
            except BaseException:
                stream.reset()
                raise
        return Report(connection.peer_id, connection.address, connection.from_listener, _sane(told))

    # For others

    async def _serve(self, stream: MuxedStream, connection: Connection) -> None:
        with trio.fail_after(ASK_SECONDS):
            ask = await receive(stream, Ask, _LIMIT)
            self._membership.require(connection, ask.network, REACH)
            told = Told()
            if connection.relay is None:
                if connection.initiator:
                    if not connection.punched:
                        told.reached.append(connection.address)
                else:
                    told.observed = connection.address
                now = trio.current_time()
                if self._served.take(connection.peer_id, now) and self._served_all.take("", now):
                    told.tried = True
                    told.reached += await self._dial_back(connection, ask.dial)
            told.reached = list(dict.fromkeys(told.reached))
            await send(stream, told)
            await stream.send_eof()

    async def _dial_back(self, connection: Connection, wanted: list[str]) -> list[str]:
        """Which addresses answer as the asker: only of the host that the connection came from."""
        host = connection.host
        # By what the asker named: where that is a name, this address of it is dialled and no other.
        ends: dict[str, Endpoint] = {}
        for text in [*([] if connection.initiator else [connection.address]), *wanted]:
            try:
                end = parse(text)
            except ValueError:
                continue
            if host and str(end) not in ends and len(ends) < _MAX_DIALLED and await _is_at(end, host):
                ends[str(end)] = Endpoint("ip6" if ":" in host else "ip4", host, end.port)
        reached: list[str] = []

        async def probe(named: str, end: Endpoint) -> None:
            with trio.move_on_after(DIAL_SECONDS):
                try:
                    stream, _ = await connect(end)
                    async with stream:
                        await self._upgrader.upgrade(stream, initiator=True, expected=connection.peer_id)
                        reached.append(named)
                except (OSError, HandshakeError, trio.BrokenResourceError):
                    pass

        async with trio.open_nursery() as nursery:
            for named, end in ends.items():
                nursery.start_soon(probe, named, end)
        return reached


async def _is_at(end: Endpoint, host: str) -> bool:
    """Whether an address is of this host: nobody has us dial somebody else."""
    if end.kind.startswith("ip"):
        return end.host == host
    family = trio.socket.AF_INET6 if ":" in host else trio.socket.AF_INET
    try:
        with trio.fail_after(1):
            found = await trio.socket.getaddrinfo(end.host, end.port, family, trio.socket.SOCK_STREAM)
    except (OSError, UnicodeError, trio.TooSlowError):
        return False
    wanted = ipaddress.ip_address(host)
    return any(ipaddress.ip_address(str(address[0]).split("%")[0]) == wanted for *_, address in found)


def _sane(told: Told) -> Told:
    """What a member claims, without what is no address."""

    def usable(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    observed = told.observed if usable(told.observed) and parse(told.observed).kind.startswith("ip") else ""
    reached = [text for text in told.reached[:8] if usable(text)]
    return Told(observed=observed, reached=reached, tried=told.tried)
