"""Members of a simulated network that do not play fair. Each takes part with a membership as any other."""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from bench.overlaynet import SimLink, SimStream
from bench.simnodes import SimNode
from hived.overlay.exchange import SYNC
from hived.overlay.ranges import Ranges

DRIP_SECONDS = 1.0


class LyingRanges(Ranges):
    """A digest that differs each time."""

    def __init__(self, honest: Ranges, rng: random.Random) -> None:
        super().__init__()
        vars(self).update(vars(honest))
        self._rng = rng

    def fingerprint(self, prefix: str = "") -> bytes:
        return self._rng.randbytes(16)


class StaleRanges(LyingRanges):
    """Lists that promise newer records of everybody; what is sent then is known."""

    def list(self, prefix: str) -> dict[str, int]:
        return {key: sequence + 1000 for key, sequence in super().list(prefix).items()}


class PromisingRanges(StaleRanges):
    """The same, and nothing is sent."""

    def author(self, key: str) -> str | None:
        return ""


def lie(node: SimNode) -> None:
    """Let a node's digests be wrong."""
    node.ledger.ranges = LyingRanges(node.ledger.ranges, node.rng)


def promise(node: SimNode) -> None:
    """Let a node promise what it never sends."""
    node.ledger.ranges = PromisingRanges(node.ledger.ranges, node.rng)


def send_stale(node: SimNode) -> None:
    """Let a node promise what is newer, and send what is known."""
    node.ledger.ranges = StaleRanges(node.ledger.ranges, node.rng)


def stay_silent(node: SimNode) -> None:
    """Let a node accept streams, and neither read nor answer."""

    async def serve(stream: SimStream, link: SimLink) -> None:
        await trio.sleep_forever()

    node.host.handlers[SYNC] = serve


def drip(node: SimNode) -> None:
    """Let a node read, and answer one byte a second: the beginning of a message that never ends."""

    async def serve(stream: SimStream, link: SimLink) -> None:
        async def read() -> None:
            while await stream.receive_some(1):  # noqa: ASYNC110 (it is slow on purpose)
                await trio.sleep(DRIP_SECONDS)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                for byte in (1000).to_bytes(4, "big") + bytes(996):
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(DRIP_SECONDS)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    node.host.handlers[SYNC] = serve


KINDS: dict[str, Callable[[SimNode], None]] = {
    "lying": lie,
    "promising": promise,
    "stale": send_stale,
    "silent": stay_silent,
    "dripping": drip,
}
