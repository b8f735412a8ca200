"""The call that gives a network another password, and what is to be said of one under way."""

from __future__ import annotations

import time
from collections.abc import Iterable

import trio

from ..errors import conflict, denied, several, usage
from ..logs import Log
from ..overlay.connection import STREAM_ERRORS, DialError
from ..overlay.membership import JoinDelayedError, JoinRefusedError
from ..overlay.networkkeys import SHORT_PASSWORD, derive_key, generate_password
from ..overlay.rekey import GRACE_SECONDS, announced
from ..schema import MAX_GRACE, NetworkRekeyed, RekeyNetwork
from ..store.networks import Registration
from .auth import Caller
from .node import Node, rfc3339

log = Log("hived.api.rekey")

_CLOCKS = 86400.0
CONFIRM_SECONDS = 10.0


async def rekey_network(node: Node, caller: Caller, name: str, body: RekeyNetwork) -> NetworkRekeyed:
    """Give a network a new password; the former one counts too for a grace time, or not at all."""
    node.require_network(name)
    what = f"rekeying {name} failed"
    if (body.now or body.cancel) and not caller.is_local:
        raise usage(
            what,
            "the end of a password may cut this very connection, and the answer with it",
            "Type it on that node itself, or use --grace 1m, which ends by itself",
        )
    before = node.membership.keys[name]
    if body.cancel:
        return await _cancel(node, name)
    if body.now and body.password is None and name in node.rekeys.running:
        return await _end(node, name)
    if body.join and body.password is None:
        raise usage(what, "the password that another member has made is missing", "Give it")
    if body.password is None and body.grace is not None and name in node.rekeys.running:
        return await _prolong(node, name, body.grace)
    if body.password is None:
        _refuse_second_password(node, name, body.now)
    password = body.password or generate_password()
    key = await trio.to_thread.run_sync(derive_key, name, password)
    if key == before[-1] and not body.now:
        if body.grace is not None and name in node.rekeys.running:
            return await _prolong(node, name, body.grace)
        by = several(_names(node, claims(node, name)))
        why = f"that is the password that it has already; {by} says otherwise" if by else ""
        raise conflict(what, why or "that is its password already", "See hivectl networks")
    if key == before[0] and len(before) == 2:
        raise conflict(
            what, "that is the former password", f"To go back to it: hivectl networks rekey {name} --cancel"
        )
    # Asked in any case: a password typed wrong must change nothing.
    confirmed = await _confirm(node, name, key) if body.join else None
    default = GRACE_SECONDS if confirmed is None else confirmed
    grace = 0.0 if body.now else default if body.grace is None else body.grace
    until = await node.rekeys.begin(name, key, grace, before)
    await _forgive(node, name)
    return await _answer(
        node,
        NetworkRekeyed(
            name=name,
            password=None if body.password else password,
            until=rfc3339(until),
            moved=moved(node, name),
            not_moved=_unshown(node, name),
            warning=weakness(body.password),
        ),
    )


async def _answer(node: Node, answer: NetworkRekeyed) -> NetworkRekeyed:
    await node.publish()
    node.peers.kick(forgive=True)
    node.notify()
    return answer


async def _cancel(node: Node, name: str) -> NetworkRekeyed:
    had = await node.rekeys.cancel(name)
    return await _answer(node, NetworkRekeyed(name=name, cancelled=True, moved=_names(node, had)))


async def _prolong(node: Node, name: str, grace: float) -> NetworkRekeyed:
    until = await node.rekeys.set_end(name, grace)
    return await _answer(
        node,
        NetworkRekeyed(
            name=name, until=rfc3339(until), moved=moved(node, name), not_moved=not_moved(node, name)
        ),
    )


async def _end(node: Node, name: str) -> NetworkRekeyed:
    """End a grace time before it is over; but not for all others, which would be a slip."""
    out = not_moved(node, name)
    if out and not node.rekeys.running[name].moved:
        raise conflict(
            f"ending the former password of {name} failed",
            f"nobody has shown the new one yet: {several(out)} would be out",
            f"Give it to them: hivectl networks rekey {name} --join there; or go back: --cancel here;"
            " or cut them all the same: --now --password-stdin with the new password",
        )
    await node.rekeys.end(name)
    return await _answer(node, NetworkRekeyed(name=name, moved=moved(node, name), not_moved=out))


async def _confirm(node: Node, name: str, key: bytes) -> float | None:
    """Ask members that may have a new password whether it is this one; for how long the former one counts, s.

    Those are members that say so, and such as refuse this node: one of these has ended the former one.
    All at once: one that lies, or is silent, must not hide another that has it. None where nobody
    answers. Raises HiveError (denied) when all that do have another one.
    """
    told, refused = claims(node, name), list[str]()
    # What this node held back for was another password.
    node.membership.forgive(name)
    ends: list[float] = []

    async with trio.open_nursery() as nursery:

        async def ask(peer_id: str) -> None:
            while True:
                try:
                    # A keeper may close the connection that refused it.
                    connection = node.host.find(peer_id, name) or await node.peers.dial(peer_id)
                    await node.membership.confirm(connection, name, key)
                except JoinDelayedError as error:
                    # This node has tried there with the former password.
                    await trio.sleep(error.seconds)
                except JoinRefusedError:
                    refused.append(peer_id)
                    return
                except DialError as error:
                    log.debug("a member cannot confirm the new password", peer=peer_id, why=error)
                    return
                except STREAM_ERRORS:
                    await trio.sleep(0.5)
                else:
                    left = told.get(peer_id, 0.0) - time.time()
                    ends.append(min(max(1.0, left), MAX_GRACE) if peer_id in told else 0.0)
                    nursery.cancel_scope.cancel()

        nursery.cancel_scope.deadline = trio.current_time() + CONFIRM_SECONDS
        refusing = [link.peer_id for link in node.peers.links.values() if name in link.join_errors]
        for peer_id in {*told, *refusing}:
            nursery.start_soon(ask, peer_id)
    if ends:
        return ends[0]
    if refused:
        raise denied(
            f"rekeying {name} failed",
            f"{several(_names(node, refused))} {'has' if len(refused) == 1 else 'have'} another one",
            f"Check what you typed; or, if that is not to be believed, go past it:"
            f" hivectl networks rekey {name} --password-stdin",
        )
    return None


async def _forgive(node: Node, network: str) -> None:
    """Peers that refused the former password are tried again."""
    async with node.changes:
        for key, registration in list(node.book.registrations.items()):
            if registration.network == network and registration.refused:
                await node.networks.register(*key)
                node.book.registrations[key] = Registration(*key, 0)


def _refuse_second_password(node: Node, name: str, now: bool) -> None:
    """A password that nobody else has would split the network: there is one already, take that."""
    what = f"making a new password for {name} failed"
    if name in node.rekeys.running:
        raise conflict(
            what,
            "this node has a new one already",
            f"Type it on the others: hivectl networks rekey {name} --join;"
            " or, if it is lost, go back first: --cancel",
        )
    by = _names(node, claims(node, name))
    if by and not now:
        raise conflict(
            what,
            f"{several(by)} {'says that it has' if len(by) == 1 else 'say that they have'} made one",
            f"Take that: hivectl networks rekey {name} --join; or, if it is not to be believed, give one with"
            " --password-stdin, add --now, or forget that node (hivectl nodes forget)",
        )


def claims(node: Node, network: str) -> dict[str, float]:
    """Members that say that they have a new password, not shown to be ours; until when, epoch seconds.

    What a member says is a claim: one that is blocked, or that names an impossible time, is not heard.
    """
    now = time.time()
    found = {}
    for record in node.sync.visible(network):
        until = announced(record)
        if until is None or not now < until <= now + MAX_GRACE + _CLOCKS:
            continue
        peer_id = record.peer_id
        heard = peer_id != node.identity.peer_id and not node.book.is_blocked(peer_id)
        if heard and not node.rekeys.has_moved(network, peer_id):
            found[peer_id] = until
    return found


def troubles(node: Node, network: str) -> list[str]:
    """What status says of a network's passwords."""
    rekeying = node.rekeys.running.get(network)
    told = claims(node, network)
    if rekeying is None:
        if not told:
            return []
        says = "says that it has" if len(told) == 1 else "say that they have"
        return [
            f"{network}: {several(_names(node, told))} {says} a new password for it, this node does not;"
            f" if you trust that: hivectl networks rekey {network} --join"
        ]
    waiting = not_moved(node, network)
    lines = [
        f"{network} is being rekeyed: the former password counts until {rfc3339(rekeying.until)};"
        f" {'not moved: ' + several(waiting) if waiting else 'all have moved'}"
    ]
    # Who is connected has shown what it has: another one.
    others = _names(node, (peer for peer in told if node.host.find(peer, network)))
    if others:
        lines.append(
            f"{network}: {several(others)} made another new password: choose one of them, and"
            f" on the nodes that have the other one type hivectl networks rekey {network} --join"
        )
    return lines


def moved(node: Node, network: str) -> list[str]:
    """Names (else peer IDs) of the members that have shown a rekeyed network's new key."""
    return _names(node, (peer for peer in _others(node, network) if node.rekeys.has_moved(network, peer)))


def not_moved(node: Node, network: str) -> list[str]:
    """Names (else peer IDs) of those that have not; none unless the network is being rekeyed."""
    return _unshown(node, network) if network in node.rekeys.running else []


def _unshown(node: Node, network: str) -> list[str]:
    return _names(node, (peer for peer in _others(node, network) if not node.rekeys.has_moved(network, peer)))


def _others(node: Node, network: str) -> list[str]:
    """The members besides this node and those that are blocked here."""
    known = (record.peer_id for record in node.sync.visible(network))
    return [p for p in known if p != node.identity.peer_id and not node.book.is_blocked(p)]


def _names(node: Node, peers: Iterable[str]) -> list[str]:
    names = node.names()
    return sorted(names.shown(peer) or peer for peer in peers)


def weakness(password: str | None) -> str:
    """A warning of a short password, or nothing."""
    if password is None or len(password) >= SHORT_PASSWORD:
        return ""
    return (
        f"the password has fewer than {SHORT_PASSWORD} characters: whoever reaches this node can try to"
        " guess it; without one, a strong one is made"
    )
