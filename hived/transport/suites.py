"""The ways to secure a connection: what differs between them.

All are Noise_XX_25519_*_SHA256 (Noise revision 34) with libp2p's payload and identity proof (libp2p
noise specification). docs/security.md says what the two of our own differ in, and why that is safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

TAG_BYTES: Final = 16
KIB: Final = 1024


@dataclass(frozen=True)
class Suite:
    """``prefix``: bytes of a message's length; ``max_plain``: payload bytes of the longest message.

    ``rekey_after``: messages in one direction after which its key is replaced, None for never.
    """

    protocol: str
    noise_name: str
    aes: bool
    prefix: int
    max_plain: int
    rekey_after: int | None

    @property
    def max_record(self) -> int:
        """Bytes of the longest message without its prefix."""
        return self.max_plain + TAG_BYTES


NOISE: Final = Suite(
    "/noise", "Noise_XX_25519_ChaChaPoly_SHA256", aes=False, prefix=2, max_plain=65535 - 16, rekey_after=None
)
AESGCM: Final = Suite(
    "/hive/noise-aesgcm/1.0.0",
    "Noise_XX_25519_AESGCM_SHA256",
    aes=True,
    prefix=2,
    max_plain=65535 - 16,
    rekey_after=1 << 20,
)
# A full yamux frame of 128 KiB is one message.
AESGCM_LONG: Final = Suite(
    "/hive/noise-aesgcm-long/1.0.0",
    "Noise_XX_25519_AESGCM_SHA256",
    aes=True,
    prefix=4,
    max_plain=128 * KIB + 12,
    rekey_after=1 << 20,
)


@cache
def offered(cpu: Path = Path("/proc/cpuinfo")) -> tuple[Suite, ...]:
    """What this machine offers and takes, the best first: AES only where the CPU has instructions for it.

    Without them AES is slow, and in software hardly done in constant time.
    """
    return (AESGCM_LONG, AESGCM, NOISE) if _has_aes(cpu) else (NOISE,)


def _has_aes(cpu: Path) -> bool:
    try:
        lines = cpu.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(
        "aes" in line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))
    )
