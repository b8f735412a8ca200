"""Calls that write this node's state into a file, and take it from one."""

from __future__ import annotations

import time

import trio

from .. import __version__
from ..errors import conflict, denied
from ..logs import Log
from ..overlay.connection import STREAM_ERRORS, Connection, DialError
from ..overlay.identify import PING
from ..overlay.identity import Identity, usable_addresses
from ..schema import Backup, BackupRequest, Restored, RestoreRequest
from ..store import backup as file
from ..store import restore as staging
from ..store import snapshot
from ..store.settings import RESTORED, Settings
from .auth import Caller
from .node import Node, rfc3339

log = Log("hived.api.backup")

ALIVE_SECONDS = 5.0
# Kept from this node: the name in its configuration is not news to the restored one, whose own name holds.
_CONFIGURED_NAME = "configured_name"
MOVE = (
    "A node runs once; to move it, make a backup, then stop the old hived for good"
    " (systemctl disable --now hived hived.socket hived-web.socket), then restore, in this order"
)


async def backup(node: Node, caller: Caller, body: BackupRequest) -> Backup:
    """All of this node's state, encrypted with a passphrase."""
    async with node.archive:
        image = await snapshot.take(node.database)
        networks, created = sorted(node.membership.keys), time.time()
        peer_id, name, addresses = node.identity.peer_id, node.name(), node.addresses()

        def make() -> bytes:
            database, key = snapshot.export(image, node.state_key)
            content = file.Content(peer_id, name, __version__, created, networks, addresses, key, database)
            return file.encrypt(content, body.passphrase)

        data = await trio.to_thread.run_sync(make)
    return Backup(backup=data, peer_id=peer_id, name=name, networks=networks, created=rfc3339(created) or "")


async def restore(node: Node, caller: Caller, body: RestoreRequest) -> Restored:
    """Become the node of a backup: hived checks it and starts anew with it. On the machine itself only."""
    if not caller.is_local:
        raise denied(
            "restoring failed",
            "it is done on the machine itself only",
            "Copy the backup there and type: hivectl restore FILE",
        )
    async with node.archive:
        settings = {
            RESTORED: str(time.time()),
            _CONFIGURED_NAME: await Settings(node.database).get(_CONFIGURED_NAME),
        }

        def read() -> tuple[file.Content, snapshot.Adopted]:
            content = file.decrypt(body.backup, body.passphrase)
            return content, snapshot.adopt(content.database, content.key, node.state_key, settings)

        content, adopted = await trio.to_thread.run_sync(read)
        if not Identity.from_seed(adopted.seed).peer_id == adopted.peer_id == content.peer_id:
            raise file.damaged("its identity key is another node's")
        if not body.replace:
            _refuse_loss(node, content)
        if content.peer_id != node.identity.peer_id:
            await _refuse_copy(node, content)
        # A change from here on would be undone.
        node.is_restored = True
        try:
            await trio.to_thread.run_sync(staging.stage, node.config.data_dir, adopted.database)
        except BaseException:
            node.is_restored = False
            raise
    log.warning("a backup is restored; hived starts anew", peer=content.peer_id, name=content.name)
    return Restored(
        peer_id=content.peer_id,
        name=content.name,
        networks=content.networks,
        created=rfc3339(content.created) or "",
    )


def _refuse_loss(node: Node, content: file.Content) -> None:
    """Raises HiveError (conflict) where the restored state would take the place of another."""
    what = "restoring failed"
    if content.peer_id == node.identity.peer_id:
        raise conflict(
            what,
            f"this is that node itself, and everything since {rfc3339(content.created)} would be undone",
            "If that is what you want, add --replace",
        )
    mine = [f"network {name}" for name in sorted(node.membership.keys)]
    counts = (
        (len(node.proxies.running), "proxy", "proxies"),
        (len({peer for peer, _ in node.book.registrations}), "registered node", "registered nodes"),
    )
    mine += [f"{count} {one if count == 1 else several}" for count, one, several in counts if count]
    if mine:
        raise conflict(
            what,
            f"this node ({node.name()}, {node.identity.peer_id}) would be lost with {', '.join(mine)}",
            "If that is what you want, add --replace; hivectl backup FILE saves it first",
        )


async def _refuse_copy(node: Node, content: file.Content) -> None:
    """Raises HiveError (conflict) where the node of the backup still answers somewhere."""
    peer_id = content.peer_id
    if node.book.is_blocked(peer_id):
        raise conflict(
            "restoring failed",
            f"{peer_id} is blocked here, so that nobody can tell whether it still runs",
            f"Unblock it: hivectl nodes unblock {peer_id}",
        )
    found: list[str] = []
    with trio.move_on_after(ALIVE_SECONDS):
        async with trio.open_nursery() as nursery:

            def answered(address: str) -> None:
                found.append(address)
                nursery.cancel_scope.cancel()

            async def ask(connection: Connection) -> None:
                try:
                    (await connection.open_stream(PING)).reset()
                except STREAM_ERRORS:
                    return
                answered(connection.address)

            async def dial(address: str) -> None:
                try:
                    connection = await node.host.dial(address, peer_id)
                except DialError as error:
                    log.debug("the backup's node does not answer", address=address, why=error)
                    return
                node.host.close_soon(connection)
                answered(address)

            for connection in list(node.host.connections.get(peer_id, ())):
                nursery.start_soon(ask, connection)
            for address in _addresses(node, content):
                nursery.start_soon(dial, address)
    if found:
        raise conflict(
            "restoring failed", f"{content.name} ({peer_id}) still runs: it answered at {found[0]}", MOVE
        )


def _addresses(node: Node, content: file.Content) -> list[str]:
    """Where the node was to be dialled when its backup was made, and where by what is known here."""
    told = list(content.addresses)
    for network in node.membership.keys:
        record = node.sync.get(network, content.peer_id)
        told += record.addresses if record else []
    told += node.book.addresses.get(content.peer_id, [])
    return usable_addresses(told)
