"""A forwarder over py-libp2p as it comes: its own Noise and yamux, nothing of hived.

    python -m bench.stockforward listen ADDRESS PORT TARGET_PORT     prints "ready" and its peer ID
    python -m bench.stockforward dial ADDRESS PORT PEER LOCAL_PORT   prints "ready"

It does what an application does with py-libp2p: a stream for each connection, and a task for each direction.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from multiaddr import Multiaddr

PROTOCOL = TProtocol("/bench/forward/1.0.0")
CHUNK = 65536


def host() -> Any:
    """A host that offers Noise and yamux alone."""
    keys = create_new_key_pair()
    noise = NoiseTransport(libp2p_keypair=keys, noise_privkey=create_x25519().private_key)
    return new_host(key_pair=keys, sec_opt={NOISE: noise}, muxer_preference="YAMUX")


async def join(pipe: trio.SocketStream, stream: Any) -> None:
    """Pass bytes both ways until one side is done; then close both."""

    async def out() -> None:
        async for data in pipe:
            await stream.write(data)

    async def back() -> None:
        while data := await stream.read(CHUNK):
            await pipe.send_all(data)

    async def run(direction: Any, scope: trio.CancelScope) -> None:
        # py-libp2p has many names for the end of a stream.
        with contextlib.suppress(Exception):
            await direction()
        scope.cancel()

    pipe.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, out, nursery.cancel_scope)
        nursery.start_soon(run, back, nursery.cancel_scope)
    with trio.CancelScope(shield=True), contextlib.suppress(Exception):
        await stream.reset()
    await pipe.aclose()


async def listen(arguments: list[str]) -> None:
    address, port, target = arguments
    node = host()

    async def accept(stream: Any) -> None:
        await join(await trio.open_tcp_stream("127.0.0.1", int(target)), stream)

    node.set_stream_handler(PROTOCOL, accept)
    async with node.run(listen_addrs=[Multiaddr(f"/ip4/{address}/tcp/{port}")]):
        print("ready", node.get_id(), flush=True)
        await trio.sleep_forever()


async def dial(arguments: list[str]) -> None:
    address, port, peer, local = arguments
    node = host()
    async with node.run(listen_addrs=[]):
        there = info_from_p2p_addr(Multiaddr(f"/ip4/{address}/tcp/{port}/p2p/{peer}"))
        await node.connect(there)

        async def accept(pipe: trio.SocketStream) -> None:
            await join(pipe, await node.new_stream(there.peer_id, [PROTOCOL]))

        async with trio.open_nursery() as nursery:
            serve = trio.serve_tcp
            await nursery.start(
                lambda task_status: serve(
                    accept, int(local), host="127.0.0.1", backlog=4096, task_status=task_status
                )
            )
            print("ready", flush=True)


if __name__ == "__main__":
    trio.run({"listen": listen, "dial": dial}[sys.argv[1]], sys.argv[2:])
