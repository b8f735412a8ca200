"""One attempt to connect to a peer: its addresses raced, and the relays that it names behind them.

Direct comes first; a relay is tried when no address has answered for a second, all have failed, or did the
last time. What is direct replaces what is relayed later (``holepunch``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import trio

from ..errors import HiveError
from ..logs import Log
from .circuits import Circuits
from .connection import Connection, DialError
from .host import Host
from .identity import CIRCUIT, outside_relay, relay_of

log = Log("hived.overlay.dialer")

MAX_DIALS = 16
STAGGER_SECONDS = 0.2
# For the addresses alone.
DIRECT_SECONDS = 1.0


@dataclass(eq=False)
class Tries:
    """What is known of the ways to a peer: the last error of each, which address was good.

    ``relayed``: its last connection was, whoever made it.
    """

    errors: dict[str, str] = field(default_factory=dict)
    last_good: str = ""
    relayed: bool = False


class Dialer:
    """``addresses`` of a peer, best first; ``relays`` that it names: IDs of members, addresses of others.

    ``to_relay`` makes a direct connection to a relay, raising HiveError.
    """

    def __init__(
        self,
        host: Host,
        addresses: Callable[[str], Iterable[str]],
        relays: Callable[[str], Iterable[str]] = lambda peer_id: (),
        circuits: Circuits | None = None,
        to_relay: Callable[[str], Awaitable[Connection]] | None = None,
    ) -> None:
        self._host = host
        self._addresses = addresses
        self._relays = relays
        self._circuits = circuits
        self._to_relay = to_relay
        self._dials = trio.CapacityLimiter(MAX_DIALS)
        self._circuit_dials = trio.CapacityLimiter(MAX_DIALS)

    async def dial(self, peer_id: str, tries: Tries) -> Connection:
        """Connect by the first way that answers. Raises DialError."""
        told = list(dict.fromkeys(self._addresses(peer_id)))
        addresses = [address for address in told if relay_of(address) is None]
        if tries.last_good in addresses:
            addresses.remove(tries.last_good)
            addresses.insert(0, tries.last_good)
        circuits = [relay for relay in map(relay_of, told) if relay is not None]
        named = dict.fromkeys([*self._relays(peer_id), *circuits]) if self._circuits else {}
        # Last those through which nothing came, and those that are not connected: one of them may be why
        # this peer must be dialled.
        relays = sorted(
            (relay for relay in named if relay != peer_id),
            key=lambda relay: (circuit_address(relay) in tries.errors, self._is_away(relay)),
        )
        ways = [*addresses, *map(circuit_address, relays)]
        tries.errors = {way: why for way, why in tries.errors.items() if way in ways}
        if not ways:
            raise DialError("no address of it is known")
        # What did not answer the last time is tried again, but no relay waits for it.
        eager = bool(relays) and (tries.relayed or all(address in tries.errors for address in addresses))
        winner: list[Connection] = []
        async with trio.open_nursery() as nursery:
            failed = {way: trio.Event() for way in ways}

            async def one(way: str, make: Callable[[], Awaitable[Connection]]) -> None:
                try:
                    connection = await make()
                except DialError as error:
                    tries.errors[way] = str(error)
                    failed[way].set()
                    return
                except Exception:
                    # What others name is dialled here: one way's failure, not the node's end.
                    log.exception("a defect in dialling; please report it", peer=peer_id, way=way)
                    tries.errors[way] = "a defect in hived"
                    failed[way].set()
                    return
                if connection.relay is None:
                    # Of a relay's only a membership on it shows that something comes through.
                    tries.errors.pop(way, None)
                    tries.last_good = way
                if winner:
                    self._host.close_soon(connection)
                else:
                    winner.append(connection)
                nursery.cancel_scope.cancel()

            # Not held behind the addresses: a relay may have to be dialled first, which needs a place itself.
            async with self._dials:
                for address in addresses:
                    nursery.start_soon(
                        one, address, lambda address=address: self._host.dial(address, peer_id)
                    )
                    with trio.move_on_after(0 if eager else STAGGER_SECONDS):
                        await failed[address].wait()
                ahead = 0 if eager else DIRECT_SECONDS if relays else float("inf")
                with trio.move_on_after(ahead):
                    for address in addresses:
                        await failed[address].wait()
            for relay in relays:
                way = circuit_address(relay)
                nursery.start_soon(one, way, lambda relay=relay: self._through(relay, peer_id))
                with trio.move_on_after(DIRECT_SECONDS):
                    await failed[way].wait()
        if winner:
            return winner[0]
        # It may have dialled us meanwhile.
        found = self._host.find(peer_id)
        if found is not None:
            return found
        raise DialError("; ".join(f"{way}: {tries.errors.get(way, 'no answer')}" for way in ways[:4]))

    def _is_away(self, relay: str) -> bool:
        return self._host.find(outside_relay(relay) or relay) is None

    async def _through(self, relay: str, peer_id: str) -> Connection:
        assert self._circuits is not None
        outside = outside_relay(relay)
        if outside is not None:
            found = self._host.find(outside)
            connection = found or await self._host.dial(relay, outside)
            async with self._circuit_dials:
                return await self._circuits.dial(connection, peer_id)
        assert self._to_relay is not None
        try:
            connection = await self._to_relay(relay)
        except HiveError as error:
            raise DialError(f"the relay is not reached: {error.why}") from None
        async with self._circuit_dials:
            return await self._circuits.dial(connection, peer_id)


def circuit_address(relay: str) -> str:
    """How a way through a relay is written."""
    return f"{relay if relay.startswith('/') else f'/p2p/{relay}'}{CIRCUIT}"
