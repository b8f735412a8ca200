"""What one connection may take of this node's memory and patience."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .frames import INITIAL_WINDOW, MAX_FRAME

KIB: Final = 1024
MIB: Final = 1024 * KIB
# What one call to the kernel brings of a tunnel at most; more spoils the cache (findings).
RECEIVE_BYTES: Final = 300_000


@dataclass(frozen=True)
class MuxLimits:
    """Bounds of one connection; sizes in bytes, times in seconds."""

    max_streams: int = 4096
    """Open at once, counted apart for those that the peer opened and those that we did."""

    accept_backlog: int = 256
    """Opened by the peer and not yet accepted; one more is reset."""

    ack_backlog: int = 256
    """Opened by us and not yet acknowledged; ``open`` then waits (spec: "ACK backlog")."""

    max_window: int = 4 * MIB
    """To where the receive window of a stream grows."""

    max_windows: int = 64 * MIB
    """All receive windows together; above it none grows."""

    max_held: int = 256 * MIB
    """What has come on all streams together and nobody has taken; more resets the stream that brings it."""

    max_frame: int = MAX_FRAME
    """Payload of one incoming frame."""

    frames_at_once: int = 256
    """Records and frames handled in one turn; then other connections have theirs."""

    read_at_once: int = RECEIVE_BYTES
    """Read in one turn, at most."""

    borrows: bool = True
    """Whether part of a large record may occupy a whole receive buffer, which is faster."""

    pending_resets: int = 1024
    """Resets that the peer does not take off our hands; more end the connection."""

    lingering: int = 1024
    """Streams closed here and not by the peer; more reset the oldest."""

    keep_alive: float = 10.0
    """After so long a silence the peer is pinged."""

    keep_alive_timeout: float = 15.0
    """After so long a silence behind a ping the connection is dead."""

    ack_timeout: float = 30.0
    """Streams closed here that the peer has not acknowledged for so long, at least, are reset."""

    rtt_interval: float = 60.0
    """A busy connection is pinged this often, to know its round-trip time."""

    close_timeout: float = 1.0
    """For handing over what is queued and GoAway."""

    def __post_init__(self) -> None:
        if self.max_window < INITIAL_WINDOW:
            raise ValueError(f"yamux knows no window below {INITIAL_WINDOW} bytes")
