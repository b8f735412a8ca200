"""The join: the real Membership on a real stream, with a peer that does what the input says.

First byte: whether hived answers or opens, knows the peer, is in the network, changes its password. Then a
step for each message of the peer: an honest one, one with a byte changed, with other fields, any bytes,
hived's own last message, an end.
"""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from functools import cache, cached_property
from typing import Any

import msgspec
import trio

from hived.overlay.connection import STREAM_ERRORS, Connection
from hived.overlay.host import Host
from hived.overlay.identity import Identity
from hived.overlay.joinhandshake import JOIN, Binding, JoinHandshake
from hived.overlay.membership import (
    Answer,
    Confirm,
    Done,
    Hello,
    JoinDelayedError,
    JoinRefusedError,
    Membership,
)
from hived.overlay.networkkeys import network_id
from hived.overlay.wire import LENGTH_BYTES, Message, ProtocolError, decode, encode, receive
from hived.transport.multistream import negotiate
from hived.transport.muxstream import MuxedStream
from tests.planes import ends, muxer, plane

from .target import Script, Target

HIVED, PEER = Identity.from_seed(b"h" * 32), Identity.from_seed(b"p" * 32)
NETWORK, K, NEWER, HASH = "net", b"k" * 32, b"l" * 32, b"n" * 32
OPENS, KNOWN, ELSEWHERE, REKEYED = 1, 2, 4, 8
_GONE = (*STREAM_ERRORS, EOFError)
_FIELDS = msgspec.msgpack.Decoder(dict[str, Any])


@cache
def _begun(opener: bool) -> JoinHandshake:
    ends = (PEER, HIVED) if opener else (HIVED, PEER)
    return JoinHandshake(
        K, Binding(network_id(NETWORK), ends[0].peer_id, ends[1].peer_id, HASH), opener=opener
    )


class Peer:
    """The side that the input plays: ``proof`` is what it sent for one, ``honest`` whether it kept to it."""

    def __init__(self, script: Script, *, opener: bool) -> None:
        self.script = script
        self.honest = True
        self.proof = b""
        self._opener = opener
        self._share = b""
        self._heard = b""

    @cached_property
    def own(self) -> JoinHandshake:
        """The peer's honest half; it always draws the same secret."""
        fresh = copy(_begun(self._opener))
        fresh._spake = copy(fresh._spake)
        with suppress(ProtocolError):
            fresh.finish(self._share)
        return fresh

    async def open(self, stream: MuxedStream) -> None:
        await self._say(stream, Hello(network=network_id(NETWORK), share=_begun(self._opener).share))
        self._share = (await self._hear(stream, Answer)).share
        await self._say(stream, Confirm(proof=self.own.confirmation))
        await self._hear(stream, Confirm)
        await self._say(stream, Done())

    async def answer(self, stream: MuxedStream) -> None:
        self._share = (await self._hear(stream, Hello)).share
        await self._say(stream, Answer(share=_begun(self._opener).share))
        await self._hear(stream, Confirm)
        await self._say(stream, Confirm(proof=self.own.confirmation))
        await self._hear(stream, Done)

    async def _hear(self, stream: MuxedStream, kind: type[Any]) -> Any:
        message = await receive(stream, kind, 1024)
        self._heard = encode(message)
        return message

    async def _say(self, stream: MuxedStream, message: Message) -> None:
        said = self._chosen(encode(message))
        self.honest = self.honest and said == encode(message)
        if isinstance(message, Confirm):
            with suppress(ProtocolError):
                self.proof = decode(said[LENGTH_BYTES:], Confirm).proof
        await stream.send_all(said)
        # Half a message without an end would only wait for the time limit.
        whole = int.from_bytes(said[:LENGTH_BYTES], "big") == len(said) - LENGTH_BYTES
        if self.script.byte() & 1 or not whole:
            self.honest = False
            await stream.send_eof()

    def _chosen(self, honest: bytes) -> bytes:
        what = self.script.byte() % 6
        if what == 1:
            at = self.script.byte() % len(honest)
            return honest[:at] + bytes([honest[at] ^ (self.script.byte() or 1)]) + honest[at + 1 :]
        if what == 2:
            try:
                known = msgspec.msgpack.decode(honest[LENGTH_BYTES:])
                body = msgspec.msgpack.encode({**known, **_FIELDS.decode(self.script.piece())})
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
                body = b""
            return len(body).to_bytes(LENGTH_BYTES, "big") + body
        if what == 3:
            body = self.script.piece()
            return len(body).to_bytes(LENGTH_BYTES, "big") + body
        if what == 4:
            return self.script.piece()
        return self._heard if what == 5 else honest


async def scene(data: bytes) -> None:
    script = Script(data)
    how = script.byte()
    opens, elsewhere = bool(how & OPENS), bool(how & ELSEWHERE and not how & OPENS)
    peer = Peer(script, opener=not opens)
    failed = False
    with trio.fail_after(30):
        async with plane() as running, trio.open_nursery() as nursery:
            host = Host(HIVED, lambda peer_id: False, running)
            membership = Membership(host, lambda peer_id, network: bool(how & KNOWN), lambda: 0.0)
            membership.set_network(
                "another" if elsewhere else NETWORK, *((K, NEWER) if how & REKEYED else (K,))
            )
            near, far = ends()
            ours = muxer(running, near, initiator=opens)
            theirs = muxer(running, far, initiator=not opens)
            connection = Connection(PEER.peer_id, ours, opens, "/ip4/127.0.0.1/tcp/1", HASH)
            await nursery.start(ours.run)
            await nursery.start(theirs.run)

            async def play() -> None:
                stream = await (theirs.accept() if opens else theirs.open())
                with suppress(*_GONE):
                    if opens:
                        await negotiate(stream, [JOIN])
                        await peer.answer(stream)
                    else:
                        await peer.open(stream)
                    await stream.send_eof()
                    await stream.receive_some(1)
                stream.reset()

            nursery.start_soon(play)
            try:
                if opens:
                    await membership.join(connection, NETWORK)
                else:
                    stream = await ours.accept()
                    try:
                        await host.handlers[JOIN](stream, connection)
                    finally:
                        # As the host does, whatever came.
                        stream.reset()
            except (JoinRefusedError, JoinDelayedError, *STREAM_ERRORS):
                failed = True
            nursery.cancel_scope.cancel()
    admitted = NETWORK in connection.memberships
    assert connection.usable <= connection.memberships <= {NETWORK}
    assert not (failed and connection.usable)
    if admitted:
        assert not elsewhere
        assert peer.proof == peer.own.confirmation, "a member that proved nothing"
    if peer.honest and not elsewhere:
        assert NETWORK in connection.usable, "an honest peer was refused"


def run(data: bytes) -> None:
    trio.run(scene, data)


def seeds() -> list[bytes]:
    def piece(body: bytes) -> bytes:
        return len(body).to_bytes(2, "big") + body

    later = b"\2" + piece(msgspec.msgpack.encode({"later": [1]})) + b"\0"
    honest = b"\0\0"
    wrong = [
        honest,
        b"\1\x0a\x80\0",
        b"\1\0\1\0",
        later,
        b"\2" + piece(msgspec.msgpack.encode({"share": bytes(33), "proof": b"", "wait": 1e9})) + b"\0",
        b"\2" + piece(msgspec.msgpack.encode({"wait": float("nan"), "network": b""})) + b"\0",
        b"\2" + piece(msgspec.msgpack.encode({"share": b"\x01" * 33, "proof": b"p" * 32})) + b"\0",
        b"\2" + piece(msgspec.msgpack.encode({"more": [bytes(33), b""] * 4, "pair": 2**40})) + b"\0",
        b"\2" + piece(msgspec.msgpack.encode({"more": [b"p" * 32], "pair": -1})) + b"\0",
        b"\3" + piece(b"\xc1") + b"\0",
        b"\4" + piece((513).to_bytes(4, "big")) + b"\0",
        b"\5\0",
        b"\0\1",
    ]
    found = []
    for how in (0, OPENS, KNOWN, ELSEWHERE, REKEYED, REKEYED | OPENS):
        found += [bytes([how]) + honest * at + step for at in range(3) for step in wrong]
    return found


TARGET = Target("join", run, seeds, most_bytes=1024)
