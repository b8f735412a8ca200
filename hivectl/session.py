"""The API of one node as one user: tokens go along, and a log-in is asked for when it is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from hivectl import prompts, tokens
from hivectl.client import Connection, problem, segment
from hived.errors import HiveError, Kind, failed, unreachable
from hived.schema import Done, Info, Login, LoginRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hived.schema import Request

T = TypeVar("T")
R = TypeVar("R")

DEFAULT_USER = "admin"


@dataclass(frozen=True)
class Reply(Generic[T]):
    """An answer: the document as it came, for --json, and what it says."""

    raw: bytes
    value: T


class Session:
    """The API of the local node, or through it of another one.

    ``looks``: for a look that changes nothing; nobody is asked to log in, and dead tokens stay.
    """

    def __init__(self, socket: str, node: str | None = None, *, looks: bool = False) -> None:
        self._socket = socket
        self._node = node
        self._local = Session(socket, looks=looks) if node else None
        self._looks = looks
        self._peer: str | None = None
        self._spare: Connection | None = None
        self._asked = False

    def call(self, method: str, path: str, answer: type[T], body: Request | None = None) -> Reply[T]:
        """Ask, logging in on the terminal when that is needed. Raises HiveError."""
        data = None if body is None else msgspec.json.encode(body)
        raw = self._authorized(lambda connection, token: connection.request(method, path, data, token))
        return Reply(raw, decode(raw, answer))

    def stream(
        self, method: str, path: str, answer: type[T], body: Request | None = None
    ) -> Iterator[Reply[T]]:
        """The documents of an answer without end, one by one. Raises HiveError, also when it ends."""
        data = None if body is None else msgspec.json.encode(body)
        lines = self._authorized(lambda connection, token: connection.lines(method, path, data, token))
        for raw in lines:
            yield Reply(raw, decode(raw, answer))
        if self._local:
            raise unreachable(f"talking to {self._peer} failed", "it ended the connection", "Run it again")
        raise HiveError(
            Kind.NO_DAEMON,
            "talking to hived failed",
            "it ended the connection",
            "Look at: journalctl -u hived",
        )

    def info(self) -> Reply[Info]:
        """What the node tells without a log-in."""
        raw = self._connect().request("GET", "/v1/info")
        return Reply(raw, decode(raw, Info))

    def peer_id(self) -> str:
        """The peer ID of the node: the local one's own word, a remote one's as the tunnel proved it."""
        if self._peer is None:
            if self._local:
                self._spare = self._connect()
            else:
                self._peer = self.info().value.peer_id
        assert self._peer is not None
        return self._peer

    def has_token(self) -> bool:
        """Whether a log-in to this node, by this way, is kept."""
        return tokens.load(self.peer_id(), self._via()) is not None

    def _via(self) -> str | None:
        """The node that this one is reached through: a session is bound to it."""
        return self._local.peer_id() if self._local else None

    def login(self, user: str, password: str) -> Login:
        """Log in and keep the token. Raises HiveError."""
        peer = self.peer_id()
        if self._spare is not None:  # it idled while somebody typed, and may be dead
            self._spare.close()
            self._spare = None
        body = msgspec.json.encode(LoginRequest(user=user, password=password))
        answer = decode(self._connect().request("POST", "/v1/login", body), Login)
        tokens.save(peer, answer.token, self._via())
        tokens.remember(peer)
        return answer

    def logout(self) -> Reply[Done]:
        """End the session and remove its token, which goes even when hived knows it no more."""
        peer = self.peer_id()
        token = tokens.load(peer, self._via())
        try:
            raw = self._connect().request("POST", "/v1/logout", None, token)
        except HiveError as error:
            if error.kind is not Kind.LOGIN_REQUIRED:
                raise
            raw = msgspec.json.encode(Done(note="The session had ended already."))
        tokens.forget(peer, self._via())
        return Reply(raw, decode(raw, Done))

    def describe(self) -> str:
        """The node as a prompt names it; a remote one by its peer ID, which nobody else can have."""
        peer = self.peer_id()
        if self._local:
            return peer
        name = self.info().value.name
        return f"this node, {name} ({peer})" if name else f"this node ({peer})"

    def confirm(self) -> None:
        """Before the first log-in to a remote peer, have its peer ID confirmed. Raises HiveError."""
        peer = self.peer_id()
        if self._local is None or tokens.is_known(peer):
            return
        if not prompts.interactive():
            raise HiveError(
                Kind.LOGIN_REQUIRED,
                "logging in failed",
                f"this is the first log-in to {peer}, and there is no terminal to confirm it on",
                "If that is the right peer ID, add --yes",
            )
        if not prompts.confirm(f"First log-in to {peer}. Is that the right node?"):
            raise HiveError(Kind.LOGIN_REQUIRED, "logging in failed", "the peer ID was not confirmed")

    def _connect(self) -> Connection:
        """A fresh connection to the node's API."""
        if self._spare is not None:
            spare, self._spare = self._spare, None
            return spare
        if self._local is None:
            return Connection(self._socket)
        return self._local._authorized(self._tunnel)

    def _tunnel(self, connection: Connection, token: str | None) -> Connection:
        """Turn a connection to the local node into one to the remote node."""
        assert self._node is not None
        peer = connection.tunnel(self._node, token)
        # A name may come to mean another peer while somebody types a password for this one.
        if self._peer not in (None, peer):
            connection.close()
            raise unreachable("reaching the node failed", f"{self._peer} was asked for and {peer} answered")
        self._peer = self._node = peer
        return connection

    def _authorized(self, attempt: Callable[[Connection, str | None], R]) -> R:
        """Attempt it with the saved token, without one if that is refused, and after a log-in."""
        token = tokens.load(self.peer_id(), self._via()) if tokens.any_saved() else None
        refused = None
        for candidate in (token, None) if token else (None,):
            connection = self._connect()
            try:
                return attempt(connection, candidate)
            except HiveError as error:
                if error.kind is not Kind.LOGIN_REQUIRED:
                    raise
                refused = error
            if candidate and not self._looks:
                # It is expired or revoked. Root needs none, so that going without may well pass.
                tokens.forget(self.peer_id(), self._via())
        assert refused is not None
        token = self._login_on_terminal(refused)
        return attempt(self._connect(), token)

    def _login_on_terminal(self, refused: HiveError) -> str:
        command = f"hivectl login --node {self.peer_id()}" if self._local else "hivectl login"
        if self._asked or self._looks or not prompts.interactive():
            raise HiveError(
                Kind.LOGIN_REQUIRED, refused.what, refused.why or "you are not logged in", f"Type: {command}"
            )
        self._asked = True
        self.confirm()
        user = prompts.ask(f"User on {self.describe()}", DEFAULT_USER)
        password = prompts.password(f"Password of {user} on {self.describe()}")
        return self.login(user, password).token


def decode(raw: bytes, answer: type[T]) -> T:
    """The typed form of an answer. Raises HiveError when it is of another version."""
    try:
        return msgspec.json.decode(raw, type=answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # A stream whose status has long been sent can only end with its problem.
        told = problem(raw)
        if told:
            raise told from error
        raise failed(
            "reading hived's answer failed",
            str(error),
            "hived and hivectl may differ in version: hivectl version",
        ) from error


def path(*segments: str | int) -> str:
    """The path of an API call, with its segments quoted."""
    return "/v1/" + "/".join(segment(str(part)) for part in segments)
