"""Session tokens and the peers that this user has logged in to before.

They lie in ``$XDG_STATE_HOME/hive`` (``~/.local/state/hive``): one file of mode 0600 a
peer ID and, for another node's, the node it is reached through: a session is bound to that.
So a token can only ever be sent to the peer that gave it, the way that it was given.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hived.errors import failed

SUFFIX = ".token"
KNOWN_PEERS = "known_peers"


def state_dir() -> Path:
    """The directory of the tokens; it need not exist."""
    state = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification says to ignore a relative path.
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "hive"


def any_saved() -> bool:
    """Whether there is any token at all; without one nobody need ask for the peer ID."""
    try:
        return any(name.endswith(SUFFIX) for name in os.listdir(state_dir()))
    except OSError:
        return False


def load(peer_id: str, via: str | None = None) -> str | None:
    """The token for this peer as reached through the node ``via`` (None: on its own socket), or None."""
    try:
        token = _file(peer_id, via).read_text(errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failed("reading the session token failed", f"{error.filename}: {error.strerror}") from error
    # It becomes an HTTP header: a damaged file is no token.
    return token if token.isascii() and token.isprintable() and token else None


def save(peer_id: str, token: str, via: str | None = None) -> None:
    """Keep the token for this peer, atomically and for this user only."""
    _write(_file(peer_id, via), token + "\n")


def forget(peer_id: str, via: str | None = None) -> None:
    """Remove the token for this peer, if there is one."""
    try:
        _file(peer_id, via).unlink(missing_ok=True)
    except OSError as error:
        raise failed("removing the session token failed", f"{error.filename}: {error.strerror}") from error


def is_known(peer_id: str) -> bool:
    """Whether this user has logged in to this peer before."""
    return peer_id in _known_peers()


def remember(peer_id: str) -> None:
    """Note that this user has logged in to this peer; it outlives the token."""
    known = _known_peers()
    if peer_id not in known:
        _write(state_dir() / KNOWN_PEERS, "".join(f"{peer}\n" for peer in (*known, peer_id)))


def _known_peers() -> list[str]:
    try:
        return (state_dir() / KNOWN_PEERS).read_text().split()
    except OSError:
        return []


def _file(peer_id: str, via: str | None) -> Path:
    parts = [peer_id] if via is None else [peer_id, via]
    # The peer IDs come from another program: they must not name a file elsewhere.
    for part in parts:
        if not (part.isascii() and part.isalnum() and len(part) <= 128):
            raise failed("finding the session token failed", f"{part[:128]!r} is not a peer ID")
    return state_dir() / (".".join(parts) + SUFFIX)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.parent.stat().st_mode & 0o077:
            path.parent.chmod(0o700)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise failed("keeping the session failed", f"{error.filename or path}: {error.strerror}") from error
