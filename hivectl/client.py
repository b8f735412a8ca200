"""HTTP over hived's Unix socket, and through it to another node.

A connection serves one request. It opens, it may be turned into a tunnel to another
node, it carries the request, it closes: there is no state between requests that could
send one node's token or password to another.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import http.client
import os
import socket
import sys
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from hived.errors import HiveError, Kind, denied, failed, unreachable, usage
from hived.schema import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM_SOCKET = "/run/hive/control.sock"
SYSTEM_UNIT = "/lib/systemd/system/hived.service"
CONNECT_TIMEOUT = 5.0
# Without a word from hived; then it is looked at whether it runs.
PATIENCE = 5.0
# A log-in can wait for others' and a registration for a dial through a relay.
ANSWER_TIMEOUT = 90.0

JSON_TYPE = "application/json"

# The longest is a backup; whoever sends more is no hived.
_MAX_ANSWER = 1 << 28
_READ_BYTES = 1 << 16


def socket_path(named: str | None) -> str:
    """The socket to use: the one named, HIVE_SOCKET, the system's, else this user's own.

    Where the system's is not for this user, one of the user's own goes before it.
    """
    if named or (named := os.environ.get("HIVE_SOCKET")):
        return named
    found = [path for path in (SYSTEM_SOCKET, *_own_sockets()) if _exists(path)]
    usable = [path for path in found if os.access(path, os.W_OK)]
    if len(usable) > 1 and usable[0] == SYSTEM_SOCKET and sys.stderr.isatty():
        print(f"hivectl: this is the machine's node; your own is: --socket {usable[1]}", file=sys.stderr)
    return (*usable, *found, SYSTEM_SOCKET)[0]


def _own_sockets() -> list[str]:
    """Where this user's own hived may have it."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # The other is for a user without a log-in session.
    return [
        os.path.join(path, "hive", "control.sock")
        for path in (*([runtime] if runtime else ()), _state_home())
    ]


def _state_home() -> str:
    return os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")


def _exists(path: str) -> bool:
    try:
        os.stat(path)
    except PermissionError:
        return True  # something is there, and the error about it should name it
    except OSError:
        return False
    return True


def segment(text: str) -> str:
    """One segment of a URL path, quoted."""
    return quote(text, safe="")


class _UnixConnection(http.client.HTTPConnection):
    """http.client's connection over a Unix socket."""

    # Never reconnect by itself: what was a tunnel would come back as the local node.
    auto_open = 0

    def __init__(self, path: str) -> None:
        super().__init__("hive", timeout=ANSWER_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(CONNECT_TIMEOUT)
            sock.connect(self._path)
            sock.settimeout(self.timeout)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


class _TooLongError(http.client.HTTPException):
    """An answer that no hived gives."""


class Connection:
    """One connection to the local hived, good for one request."""

    def __init__(self, path: str) -> None:
        """Connect. Raises HiveError: nobody there, not allowed."""
        self._http = _UnixConnection(path)
        self._peer: str | None = None
        try:
            self._http.connect()
        except OSError as error:
            raise connect_error(path, error) from error
        # http.client drops its own reference when the answer says "Connection: close".
        self._sock = self._http.sock

    def close(self) -> None:
        """Close it; closing twice is fine."""
        self._http.close()

    def tunnel(self, node: str, token: str | None) -> str:
        """Turn the connection into one to that node's API and give its peer ID.

        ``token`` is for the local hived, which opens the tunnel.
        """
        headers = {"Connection": "Upgrade", "Upgrade": "hive-api"}
        response = self._exchange("POST", f"/v1/tunnel/{segment(node)}", None, token, headers)
        response.read()  # nothing; http.client takes no next request before
        peer = response.getheader("Hive-Peer", "")
        if response.status != http.client.SWITCHING_PROTOCOLS or not peer:
            raise failed("reaching the node failed", "hived opened no tunnel", "Compare: hivectl version")
        self._peer = peer
        return peer

    def request(self, method: str, path: str, body: bytes | None = None, token: str | None = None) -> bytes:
        """The body of the answer. Raises HiveError, also for the problem that hived answers with."""
        try:
            return self._read(self._exchange(method, path, body, token))
        finally:
            self.close()

    def lines(
        self, method: str, path: str, body: bytes | None = None, token: str | None = None
    ) -> Iterator[bytes]:
        """The lines of a streamed answer, which may take for ever.

        The request is done, and its failure raised, before the first line is asked for.
        """
        response = self._exchange(method, path, body, token)
        self._sock.settimeout(None)
        return self._lines(response)

    def _lines(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        try:
            while line := response.readline():
                if line.strip():
                    yield line.strip()
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error
        finally:
            response.close()
            self.close()

    def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        token: str | None,
        headers: dict[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """Send a request and read the head of its answer."""
        sent = headers or {"Connection": "close"}
        sent = {"Accept": f"{JSON_TYPE}, application/jsonl, application/problem+json", **sent}
        if body is not None:
            sent["Content-Type"] = JSON_TYPE
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        try:
            self._http.request(method, path, body, sent)
            with self._waiting():
                response = self._http.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._broken(error) from error
        if response.status >= 400:
            try:
                raise _refusal(response.status, self._read(response))
            finally:
                self.close()
        return response

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """Say so where nothing comes because hived itself does not answer: systemd keeps its socket open also
        while it starts, or fails to."""
        path = str(self._sock.getpeername()) if not self._peer else ""

        def look() -> None:
            if not _answers(path):
                print(
                    f"hivectl: hived has not answered for {PATIENCE:.0f} s, still waiting."
                    " See in another terminal: systemctl status hived",
                    file=sys.stderr,
                )

        timer = threading.Timer(PATIENCE, look)
        timer.daemon = True
        if path:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        parts, left = [], _MAX_ANSWER
        try:
            while part := response.read(_READ_BYTES):
                parts.append(part)
                left -= len(part)
                if left < 0:
                    raise _TooLongError
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
            return b"".join(parts)
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> HiveError:
        """What a connection that failed half-way means to a person."""
        if isinstance(error, TimeoutError):
            why, hint = f"it did not answer within {ANSWER_TIMEOUT:.0f} s", "Try again"
        elif isinstance(error, http.client.HTTPException) and not isinstance(
            error, http.client.RemoteDisconnected
        ):
            why, hint = "it answers something that is not hived's API", "Look at what runs there"
        else:
            why, hint = "it closed the connection", "It may be restarting: try again"
        if self._peer:
            return unreachable(f"talking to {self._peer} failed", why, hint)
        if isinstance(error, TimeoutError):
            return failed("talking to hived failed", why, "Look at its log: journalctl -u hived")
        return HiveError(
            Kind.NO_DAEMON, "talking to hived failed", why, f"{hint}, or look at: journalctl -u hived"
        )


def _answers(path: str) -> bool:
    """Whether hived takes requests at all; what it says to this one does not matter."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(1.0)
            sock.connect(path)
            sock.sendall(b"GET /v1/info HTTP/1.1\r\nHost: hive\r\nConnection: close\r\n\r\n")
            return bool(sock.recv(1))
    except OSError:
        return False


def problem(body: bytes, status: int | None = None) -> HiveError | None:
    """The failure that a problem document (RFC 9457) tells of; None when it is no such document.

    ``status`` is that of the answer, for a document that does not name its kind.
    """
    try:
        told = msgspec.json.decode(body, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not told.title:
        return None
    by_status = next((kind for kind in Kind if kind.status == (status or told.status)), Kind.FAILED)
    kind = by_status if told.kind == Kind.FAILED.wire else Kind.from_wire(told.kind)
    return HiveError(kind, told.title, told.detail, told.hint)


def _refusal(status: int, body: bytes) -> HiveError:
    """The failure that an answer of status 400 or more tells of."""
    kind = next((kind for kind in Kind if kind.status == status), Kind.FAILED)
    return problem(body, status) or HiveError(
        kind, "the request failed", f"hived answered with status {status} and no reason"
    )


def connect_error(path: str, error: OSError) -> HiveError:
    """Why hived's socket cannot be opened, and what to type."""
    what = "reaching hived failed"
    if isinstance(error, PermissionError):
        group = _group(path)
        if path == SYSTEM_SOCKET and (own := _own_state()):
            # Whose own hived runs is not asked for the machine's.
            why = f"{path} is the machine's, which is not for you, and your own hived ({own}) does not run"
            return denied(what, why, "See: systemctl --user status hived")
        hint = "Use sudo"
        if group != "root":  # nobody should join that one for this
            hint = f"{hint}, or join its group and log in anew: sudo usermod -aG {group} $USER"
        return denied(what, f"you may not open {path}", hint)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        why = f"there is no socket {path}"
    elif isinstance(error, ConnectionRefusedError):
        why = f"nobody listens on {path}"
    elif isinstance(error, TimeoutError | BlockingIOError):
        why = f"hived does not answer on {path}"
    elif error.errno in (None, errno.ENAMETOOLONG):  # Python's own check of the length has no errno
        return usage(what, f"the path {path!r} cannot name a socket: {error}", "Name another with --socket")
    else:
        why = f"{path}: {error.strerror}"
    start = "sudo systemctl start hived" if os.path.exists(SYSTEM_UNIT) else "hived run"
    hint = f"Start it: {start}, or name its socket with --socket"
    return HiveError(Kind.NO_DAEMON, what, why, hint)


def _own_state() -> str | None:
    """The directory of this user's own node, where there is one."""
    path = os.path.join(_state_home(), "hive")
    return path if os.path.exists(os.path.join(path, "hive.db")) else None


def _group(path: str) -> str:
    """The group of the socket, or of the directory that keeps us from looking at it."""
    while path not in ("", "/"):
        try:
            return grp.getgrgid(os.stat(path).st_gid).gr_name
        except PermissionError:
            path = os.path.dirname(path)
        except (OSError, KeyError):
            break
    return "hive"
