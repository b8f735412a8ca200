"""Fuzz one target for a while, by atheris (libFuzzer): ``python -m tests.fuzz TARGET SECONDS DIRECTORY``.

Inputs with new coverage, and the one that failed, go to DIRECTORY. Exits non-zero when an input failed, took
longer than 10 s, or memory grew.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]
import psutil

INSTRUMENTED = [
    "hived.overlay",
    "hived.api",
    "hived.transport",
    "hived.schema",
    "h11",
    "multiaddr",
    "libp2p.peer.envelope",
]
GROWTH_MB = 200
"""How much a target may grow once it is warm; libFuzzer keeps the inputs themselves in memory too."""
WARM = 2_000
LOOK_EVERY = 500


class Memory:
    """Watches the resident memory of this process over many inputs."""

    def __init__(self) -> None:
        self.inputs = 0
        self.at_first = 0.0

    def look(self) -> None:
        self.inputs += 1
        if self.inputs >= WARM and self.inputs % LOOK_EVERY == 0:
            now = psutil.Process().memory_info().rss / 2**20
            self.at_first = self.at_first or now
            if now - self.at_first > GROWTH_MB:
                raise MemoryError(f"grown from {self.at_first:.0f} to {now:.0f} MiB")


def main() -> None:
    name, seconds, directory = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    logging.disable(logging.WARNING)
    with atheris.instrument_imports(include=INSTRUMENTED):
        from .targets import TARGETS
    target, memory = TARGETS[name], Memory()
    found, kept = directory / "found", [str(path.parent) for path in target.corpus()[:1]]
    found.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (found / f"seed-{number:03}").write_bytes(seed)

    def one_input(data: bytes) -> None:
        target.run(data)
        memory.look()

    limits = [f"-max_total_time={seconds:g}", "-timeout=10", "-rss_limit_mb=1024"]
    shape = [f"-max_len={target.most_bytes}", f"-artifact_prefix={directory}/", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *limits, *shape, str(found), *kept], one_input)
    atheris.Fuzz()


main()
