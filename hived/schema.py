"""The API's requests and answers, and the rules for names and ports.

Shared by the daemon and hivectl, and the source of the OpenAPI document. Field names
are part of the contract that scripts rely on. Times are RFC 3339 in UTC, durations
seconds, sizes bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

# The look-ahead is for Python, whose "$" also matches before a final newline.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$(?!\n)"

Name = Annotated[str, Meta(pattern=NAME_PATTERN, description="1 to 63 of a-z A-Z 0-9 . _ -")]
User = Annotated[str, Meta(pattern=NAME_PATTERN)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Password = Annotated[str, Meta(min_length=1, max_length=1024)]
# A backup's passphrase: who has the file can guess at leisure, so it is longer than a password must be.
MIN_PASSPHRASE = 12
Passphrase = Annotated[str, Meta(min_length=MIN_PASSPHRASE, max_length=1024)]
MAX_BACKUP = 64 * 1024 * 1024
NodeRef = Annotated[str, Meta(min_length=1, max_length=128, description="peer ID, part of it, alias or name")]


class Request(Struct, forbid_unknown_fields=True):
    """Base of every request body: a field the schema does not name is an error."""


class Answer(Struct):
    """Base of every answer: readers ignore fields they do not know."""


class Problem(Answer):
    """RFC 9457 problem document; ``kind`` is errors.Kind's wire name."""

    type: str = "about:blank"
    title: str = ""
    status: int = 500
    detail: str = ""
    hint: str = ""
    kind: str = "failed"


class Done(Answer):
    """The answer of a call that has nothing to tell; ``note`` is for people."""

    note: str = ""


class Reloaded(Answer):
    """``need_restart``: settings that have changed, and are in force only after a restart; ``file``: what was
    read, None where no configuration file is in use."""

    need_restart: list[str]
    file: str | None = None


class Info(Answer):
    """What any member (and any local user) may know."""

    peer_id: str
    name: str
    version: str
    uptime: float
    networks: list[str]


class Identity(Answer):
    """``identity`` is base64url of the signed peer record, for ``hivectl register``."""

    peer_id: str
    name: str
    identity: str
    addresses: list[str]
    warnings: list[str] = []


class LoginRequest(Request):
    user: User
    password: Password


class Login(Answer):
    token: str
    user: str
    expires: str


class SessionRow(Answer):
    id: int
    user: str
    bound_to: str
    created: str
    expires: str
    current: bool


class AdminRow(Answer):
    user: str
    created: str


class SetAdmin(Request):
    """``password`` may also be ``hash_...``; ``old_password`` is needed unless uid 0."""

    password: Password
    old_password: str | None = None


class CreateNetwork(Request):
    """Without a password a 128-bit one is generated and answered once."""

    name: Name
    password: Password | None = None


class NetworkCreated(Answer):
    name: str
    password: str | None = None
    warning: str = ""


MAX_GRACE = 90 * 86400.0


class RekeyNetwork(Request):
    """A new password, generated when none is given. ``grace``: seconds for which the former one counts too.

    ``now``: for none; alone during a grace time it ends that. ``cancel``: the new one counts no
    more. ``join``: another member has made ``password``. Without ``grace``: 7 days, or what it says.
    """

    password: Password | None = None
    grace: Annotated[float, Meta(ge=0, le=MAX_GRACE)] | None = None
    now: bool = False
    cancel: bool = False
    join: bool = False


class NetworkRekeyed(Answer):
    """``until``: when the former password ends; null where the new one (``cancelled``: the former) is alone.

    ``moved`` and ``not_moved``: names of members that have, and have not, shown the new one here.
    """

    name: str
    password: str | None = None
    until: str | None = None
    cancelled: bool = False
    moved: list[str] = []
    not_moved: list[str] = []
    warning: str = ""


class NetworkRow(Answer):
    """``rekey_until``: until when a former password counts too, and who does not have the new one."""

    name: str
    members: int
    connected: int
    created: str
    rekey_until: str | None = None
    not_moved: list[str] = []


class RegisterRequest(Request):
    identity: Annotated[str, Meta(min_length=1, max_length=16384)]
    network: Name | None = None


class Registered(Answer):
    """``state`` is ``joined``, or ``pending`` with the reason in ``detail``."""

    peer_id: str
    network: str
    state: Literal["joined", "pending"]
    detail: str = ""


PathKind = Literal["self", "direct", "relayed", "none"]


class Node(Answer):
    """``silent``: seconds since the peer was heard on its connection, while it owes an answer; else None."""

    peer_id: str
    name: str
    network: str
    path: PathKind
    relay: str | None
    rtt_ms: float | None
    latest_contact: str | None
    version: str
    addresses: list[str]
    alias: str | None = None
    blocked: bool = False
    silent: float | None = None


class AddressState(Answer):
    """One address of a peer, whence it is known, and its last dial error."""

    address: str
    source: str
    last_error: str | None = None


class NodeDetail(Answer):
    """``silent`` is as in Node; ``why``: why the path is what it is."""

    peer_id: str
    name: str
    alias: str | None
    blocked: bool
    networks: list[str]
    path: PathKind
    relay: str | None
    rtt_ms: float | None
    latest_contact: str | None
    last_contact_here: str | None
    record_issued: str | None
    version: str
    addresses: list[AddressState]
    last_error: str | None = None
    silent: float | None = None
    relay_name: str | None = None
    why: str = ""


class Ping(Answer):
    """One round trip through the overlay, by the path that new connections take."""

    peer_id: str
    name: str
    path: PathKind
    relay: str | None
    relay_name: str | None
    rtt_ms: float


class RelayRow(Answer):
    """A relay that this node could use; ``error``: why it took no reservation last."""

    peer_id: str
    name: str
    reserved: bool
    rtt_ms: float | None
    error: str | None = None


class Netcheck(Answer):
    """What the network allows. ``nat``: ``public``, ``cone``, ``symmetric``, ``offline`` or ``unknown``.

    ``asked``: members that told how they see this node; ``reached``: addresses on which they dialled it;
    ``seen_as``: how its listeners look from outside; ``mdns``: members found on this LAN;
    ``hole_punching``: ``not needed``, ``likely``, ``unlikely`` or ``unknown``.
    """

    ipv4: bool
    ipv6: bool
    nat: str
    asked: int
    reached: list[str]
    seen_as: list[str]
    relays: list[RelayRow]
    relaying: str
    mdns: int
    mdns_on: bool
    hole_punching: str
    why: str


class SetAlias(Request):
    alias: Name | None


class Rename(Request):
    name: Name


class BackupRequest(Request):
    passphrase: Passphrase


class Backup(Answer):
    """``backup`` is the encrypted file, in base64; whoever has it and the passphrase is this node."""

    backup: bytes
    peer_id: str
    name: str
    networks: list[str]
    created: str


class RestoreRequest(Request):
    """``replace``: what this node is and has now may be lost."""

    backup: Annotated[bytes, Meta(max_length=MAX_BACKUP)]
    passphrase: Password
    replace: bool = False


class Restored(Answer):
    """What the node is when hived has started anew, which it does now. ``created``: the backup's."""

    peer_id: str
    name: str
    networks: list[str]
    created: str


Direction = Literal["egress", "ingress"]
ProxyKind = Literal["tcp"]
ProxyState = Literal["listening", "ready", "error", "disabled"]


class AddProxy(Request):
    """``port`` is this node's, ``peer_port`` the other's.

    Egress: listen on ``bind``:``port``, connect to ``peer``:``peer_port``.
    Ingress: connections from ``peer``:``peer_port`` go to ``to``:``port``.
    """

    direction: Direction
    peer: NodeRef
    port: Port
    peer_port: Port
    network: Name | None = None
    kind: ProxyKind = "tcp"
    bind: str | None = None
    to: str | None = None


class Proxy(Answer):
    """``error_at``: when ``error`` came up last; of a taken port or a full proxy, since when it is so."""

    id: int
    direction: Direction
    kind: ProxyKind
    network: str
    peer_id: str
    peer_name: str
    port: int
    peer_port: int
    bind: str | None
    to: str | None
    state: ProxyState
    error: str | None
    connections: int
    connections_total: int
    bytes_in: int
    bytes_out: int
    warning: str = ""
    error_at: str | None = None


class ForwardRequest(Request):
    """A temporary egress proxy that lives as long as the call."""

    peer: NodeRef
    peer_port: Port
    port: Port
    network: Name | None = None
    bind: str | None = None


class ForwardEvent(Answer):
    """One JSON line: first ``listening`` (``origin``: the listening node), then an ``error`` each."""

    event: Literal["listening", "connection", "error"]
    bind: str = ""
    port: int = 0
    peer_id: str = ""
    origin: str = ""
    detail: str = ""


class UnitState(Answer):
    """The systemd unit that hived runs in: ``state`` is ``active (running)``, ``enabled`` as there,
    ``restarts`` those by systemd itself since it was started, ``watchdog`` in seconds, 0 for none;
    ``failed_sockets`` are its socket units that have failed.
    """

    name: str
    state: str
    enabled: str
    restarts: int
    watchdog: float
    failed_sockets: list[str] = []


class Service(Answer):
    """How hived runs here: ``manager`` is ``systemd`` or ``none``; ``unit`` what that says, if it answers."""

    manager: str
    pid: int
    data_dir: str
    socket: str
    user: str
    unit: UnitState | None = None


class Status(Answer):
    peer_id: str
    name: str
    version: str
    uptime: float
    addresses: list[str]
    reachability: str
    networks: list[NetworkRow]
    peers: int
    proxies: list[Proxy]
    service: Service
    warnings: list[str] = []


def check_name(text: str) -> bool:
    """Whether ``text`` may name a network, a node, an alias or an admin user."""
    try:
        msgspec.convert(text, Name)
    except msgspec.ValidationError:
        return False
    return True
