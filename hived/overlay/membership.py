"""Who has proved what on which connection: ``/hive/join/1.0.0`` (DESIGN.md, Networks and membership)."""

from __future__ import annotations

import hashlib
import hmac
import math
import os
from collections import Counter
from collections.abc import Callable
from functools import partial

import msgspec
import trio

from ..logs import Log, who
from ..transport.limits import MuxLimits
from ..transport.muxstream import MuxedStream
from .addresses import source_of
from .connection import Connection
from .guesses import Guesses
from .host import Host
from .joinhandshake import JOIN, MAX_KEYS, Binding, JoinRuns
from .networkkeys import NETWORK_ID_BYTES, network_id
from .quota import Allowance
from .wire import Message, ProtocolError, receive, send

log = Log("hived.overlay.membership")

JOIN_SECONDS = 15.0
_LIMIT = 512
_TOTAL = "total"
MAX_ACTIVE = 4
MAX_HOLD = 5.0
CONFIRM_SECONDS = 3.0
MEMBER = MuxLimits()


class Hello(Message):
    """A to B: the network and A's SPAKE2 share; ``more`` of its newer key while it is rekeyed."""

    network: bytes
    share: bytes
    more: list[bytes] = msgspec.field(default_factory=list)


class Answer(Message):
    """B to A: B's shares; or ``wait``, the seconds until A may try again."""

    share: bytes = b""
    wait: float = 0.0
    more: list[bytes] = msgspec.field(default_factory=list)


class Confirm(Message):
    """From A the proofs for each pair of keys, A's counting first.

    From B the proof for one pair; empty when none of A's was right.
    """

    proof: bytes = b""
    more: list[bytes] = msgspec.field(default_factory=list)
    pair: int = 0


class Done(Message):
    """A to B: A too holds the membership now."""


class JoinRefusedError(Exception):
    """The passwords differ, or the other node is not in that network (it does not tell which)."""


class JoinDelayedError(Exception):
    """The other node takes no try from here for ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it takes no further try for {seconds:.0f} s after failed ones")
        self.seconds = seconds


class Membership:
    """Joins networks on connections, answers joins, and says who is a member.

    ``keys`` maps network names to K; to the former and the new K, in this order, while a network
    is rekeyed. ``known`` says whether a peer is a known member of a network: such peers have a
    guessing budget of their own, so a flood cannot lock them out. ``on_proved`` is told
    whether it was with this node's newest key, and whether that is the peer's newest too. ``name``: what
    a peer calls itself, for the log.
    """

    def __init__(self, host: Host, known: Callable[[str, str], bool], clock: Callable[[], float]) -> None:
        self.keys: dict[str, tuple[bytes, ...]] = {}
        self.on_proved: list[Callable[[str, str, bool, bool], None]] = []
        self.on_joined: list[Callable[[Connection, str], None]] = []
        self.name: Callable[[str], str] = lambda peer_id: ""
        self._ids: dict[bytes, str] = {}
        self._host = host
        self._known = known
        self._clock = clock
        self._guesses = Guesses()
        # Twice as many as connections are let in for: it is reached by guesses on those only.
        self._strangers = Allowance(burst=80, rate=40)
        # Stands in for the key of a network that this node is not in: a stranger
        # cannot tell that from a wrong password.
        self._decoy = os.urandom(32)
        self._active: Counter[str] = Counter()
        self._lines = Allowance(burst=20, rate=1 / 60)
        host.handlers[JOIN] = self._serve

    def set_network(self, name: str, *keys: bytes) -> None:
        """Take part in a network with its key; with the former and the new one while it is rekeyed.

        Memberships that were proved with another key end.
        """
        self.keys[name] = keys
        self._ids[network_id(name)] = name
        for connection in self._host.all_connections():
            if name in connection.memberships and connection.proved.get(name) not in keys:
                self._end(connection, name)

    def drop_network(self, name: str) -> None:
        """Forget a network and end its memberships; connections that serve no other network close."""
        self.keys.pop(name, None)
        self._ids.pop(network_id(name), None)
        for connection in self._host.all_connections():
            if name in connection.memberships:
                self._end(connection, name)

    def _end(self, connection: Connection, name: str) -> None:
        connection.memberships.discard(name)
        connection.usable.discard(name)
        connection.proved.pop(name, None)
        # Streams in this network may be open: only a new connection is free of them.
        self._host.close_soon(connection)

    def forgive(self, network: str) -> None:
        """What was wrong for a network's former key says nothing of a new one."""
        self._guesses.forgive(lambda source: source.endswith(f" {network}"))

    def is_newest(self, connection: Connection, network: str) -> bool:
        """Whether a peer proved the network's newest key."""
        return connection.proved.get(network) == self.keys[network][-1]

    def require(self, connection: Connection, wanted: bytes, protocol: str) -> str:
        """The network named by a member protocol's first message, if the peer is a member there.

        Raises ProtocolError, which resets the stream; unknown and unproved look the same.
        """
        name = self.network_of(connection, wanted)
        if name is None:
            if self._lines.take((connection.peer_id, protocol), self._clock()):
                log.warning(
                    "a peer that is no member was refused",
                    protocol=protocol,
                    peer=connection.peer_id,
                    remote=connection.address,
                )
            raise ProtocolError("not a member")
        return name

    def network_of(self, connection: Connection, wanted: bytes) -> str | None:
        """The network of an ID, if the peer is a member there. From any thread."""
        name = self._ids.get(wanted)
        return name if name in connection.memberships else None

    def members(self, network: str) -> list[Connection]:
        """One usable connection for each member that is connected."""
        found = (self._host.find(peer_id, network) for peer_id in list(self._host.connections))
        return [connection for connection in found if connection is not None]

    def doubles(self, connection: Connection, network: str) -> list[Connection]:
        """Other connections to the same peer where the network is usable."""
        same = self._host.connections.get(connection.peer_id, ())
        return [c for c in same if c is not connection and c.is_open and network in c.usable]

    async def join(self, connection: Connection, network: str, *, renew: bool = False) -> None:
        """Prove to the peer, and have it prove, that both know the network's password.

        ``renew``: also where both have done so, because this node has a newer key since.
        Raises JoinRefusedError, JoinDelayedError, or one of host.STREAM_ERRORS.
        """
        if network in connection.usable and not renew:
            return
        keys = self.keys[network]
        await self._prove(connection, network, keys, partial(self._admit, connection, network))
        self._use(connection, network)

    async def confirm(self, connection: Connection, network: str, key: bytes) -> None:
        """Have a member prove that it has a key that this node does not use yet; to it this node has moved.

        Raises as :meth:`join` does.
        """
        await self._prove(connection, network, (key,), lambda _, __: None)

    async def _prove(
        self,
        connection: Connection,
        network: str,
        keys: tuple[bytes, ...],
        agreed: Callable[[bytes, bool], None],
    ) -> None:
        """The opener's side of a join.

        ``agreed`` is told the key, and whether it is the peer's newest, before the other side relies on it.
        """
        # Apart from its tries here: what we get wrong there must not hold it up.
        source, wire_id = f"to {self._source(connection, network)}", network_id(network)
        await self._wait(source)
        binding = Binding(wire_id, self._host.identity.peer_id, connection.peer_id, connection.handshake_hash)
        with trio.fail_after(JOIN_SECONDS):
            stream = await connection.open_stream(JOIN)
            try:
                ours = JoinRuns(keys, binding, opener=True)
                await send(stream, Hello(network=wire_id, share=ours.shares[0], more=ours.shares[1:]))
                answer = await receive(stream, Answer, _LIMIT)
                if answer.wait:
                    raise JoinDelayedError(_seconds(answer.wait))
                await _finish(ours, [answer.share, *answer.more])
                proofs = ours.confirmations
                # Whoever has these knows whether its guess at our password was right: until it
                # proves that it knew, it counts as a wrong one.
                self._guesses.failed(source, self._clock())
                await send(stream, Confirm(proof=proofs[0], more=proofs[1:]))
                theirs = await receive(stream, Confirm, _LIMIT)
                if not ours.verify(theirs.pair, theirs.proof):
                    raise JoinRefusedError
                agreed(keys[ours.own_key(theirs.pair)], ours.is_their_newest(theirs.pair))
                await send(stream, Done())
                await stream.send_eof()
            except BaseException:
                stream.reset()
                raise
        self._guesses.succeeded(source)

    async def _wait(self, source: str) -> None:
        """Hold a join of this node's own back that comes too soon after failed ones there."""
        wait = self._guesses.wait(source, self._clock())
        if wait > MAX_HOLD:
            raise JoinDelayedError(wait)
        await trio.sleep(wait)

    async def _serve(self, stream: MuxedStream, connection: Connection) -> None:
        with trio.fail_after(JOIN_SECONDS):
            hello = await receive(stream, Hello, _LIMIT)
            if len(hello.network) != NETWORK_ID_BYTES or len(hello.more) >= MAX_KEYS:
                raise ProtocolError("a malformed join")
            name = self._ids.get(hello.network)
            source = self._source(connection, name)
            wait = self._guesses.wait(source, self._clock())
            stranger = not source.startswith("peer:")
            active = self._active[source] >= (1 if stranger else MAX_ACTIVE)
            if wait > 0 or active or (stranger and not self._strangers.take(_TOTAL, self._clock())):
                await send(stream, Answer(wait=math.ceil(max(wait, 1))))
                await stream.send_eof()
                return
            self._guesses.begin(source, self._clock())
            self._active[source] += 1
            try:
                await self._answer(stream, connection, hello, name, source)
            finally:
                self._active[source] -= 1
                if not self._active[source]:
                    del self._active[source]

    async def _answer(
        self, stream: MuxedStream, connection: Connection, hello: Hello, name: str | None, source: str
    ) -> None:
        known = source.startswith("peer:")
        keys = self.keys[name] if name else (self._decoy_key(hello.network, b""),)
        if not known and len(keys) == 1:
            # A stranger is not shown which networks are being rekeyed.
            keys = (*keys, self._decoy_key(hello.network, b"second"))
        binding = Binding(
            hello.network, connection.peer_id, self._host.identity.peer_id, connection.handshake_hash
        )
        try:
            ours = JoinRuns(keys, binding, opener=False)
            await _finish(ours, [hello.share, *hello.more])
            with trio.fail_after(JOIN_SECONDS if known else CONFIRM_SECONDS):
                await send(stream, Answer(share=ours.shares[0], more=ours.shares[1:]))
                theirs = await receive(stream, Confirm, _LIMIT)
        except BaseException:
            # Whoever stops here has seen what a wrong guess shows: it counts as one.
            self._refused(source, connection, name)
            raise
        pair = ours.matching([theirs.proof, *theirs.more])
        if pair is None or name is None:
            self._refused(source, connection, name)
            await send(stream, Confirm())
            await stream.send_eof()
            return
        self._guesses.succeeded(source)
        self._admit(connection, name, keys[ours.own_key(pair)], ours.is_their_newest(pair))
        await send(stream, Confirm(proof=ours.confirmations[pair], pair=pair))
        await receive(stream, Done, _LIMIT)
        self._use(connection, name)

    def _decoy_key(self, wanted: bytes, label: bytes) -> bytes:
        return hmac.digest(self._decoy, wanted + label, hashlib.sha256)

    def _source(self, connection: Connection, name: str | None) -> str:
        """Whose budget a try is charged to: a known member's own, else the relay's or the address's.

        For each of our networks apart, so that who has one password is not forgiven guesses at another.
        """
        where = f"relay:{connection.relay}" if connection.relay is not None else source_of(connection.address)
        if name is not None and self._known(connection.peer_id, name):
            where = f"peer:{connection.peer_id}"
        return f"{where} {name or ''}"

    def _refused(self, source: str, connection: Connection, name: str | None) -> None:
        now = self._clock()
        delay = self._guesses.failed(source, now)
        if not self._lines.take(source, now) or not self._lines.take(_TOTAL, now, 0.2):
            return
        log.warning(
            "join refused",
            network=name or "(not one of ours)",
            **who(connection.peer_id, self.name(connection.peer_id)),
            remote=connection.address,
            failures=self._guesses.failures(source),
            next_try_in=f"{delay:g}s",
        )

    def _admit(self, connection: Connection, network: str, key: bytes, is_theirs: bool) -> None:
        # The network may have been left, or its password changed, while the handshake ran.
        if key not in self.keys.get(network, ()) or not connection.is_open:
            raise ProtocolError("the network is gone")
        connection.memberships.add(network)
        # Two joins on one connection may end in any order: the newer key counts.
        if not (network in connection.proved and self.is_newest(connection, network)):
            connection.proved[network] = key
        connection.muxer.set_limits(MEMBER)
        for callback in self.on_proved:
            newest = self.is_newest(connection, network)
            callback(connection.peer_id, network, newest, newest and is_theirs)

    def _use(self, connection: Connection, network: str) -> None:
        if network in connection.memberships and network not in connection.usable:
            connection.usable.add(network)
            connection.served = True
            if not connection.initiator and connection.relay is None:
                self._host.inbound.admission.vouch(source_of(connection.address), trio.current_time())
            peer = who(connection.peer_id, self.name(connection.peer_id))
            log.info("joined", network=network, **peer, remote=connection.address)
            for callback in self.on_joined:
                callback(connection, network)


async def _finish(ours: JoinRuns, shares: list[bytes]) -> None:
    for _ in ours.finish(shares):
        await trio.lowlevel.checkpoint()


def _seconds(wait: float) -> float:
    """A peer's claim of how long to wait, made sane."""
    return min(max(wait, 1.0), 300.0) if math.isfinite(wait) else 300.0
