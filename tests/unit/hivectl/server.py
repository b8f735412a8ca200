"""A tiny HTTP server on a real Unix socket that answers as hived's API is described, for hivectl's tests."""

from __future__ import annotations

import json
import socketserver
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LOCAL = "12D3KooWLocalLocalLocalLocalLocalLocalLocalLocalLocal1"
REMOTE = "12D3KooWRemoteRemoteRemoteRemoteRemoteRemoteRemoteRem2"

TUNNEL = "POST /v1/tunnel/"


@dataclass(frozen=True)
class Asked:
    """A request that came: where it was for, and what was in it."""

    peer: str
    call: str
    body: Any
    token: str | None
    query: dict[str, str]


@dataclass
class Answer:
    """What to answer: one document, or lines; then the end, or silence until the client goes."""

    document: Any = None
    status: int = 200
    lines: list[Any] | None = None
    hold: bool = False
    raw: bytes | None = None
    # Not before somebody has asked for /v1/info, in another connection.
    after_info: bool = False


@dataclass
class Peer:
    """A node behind the socket: its answers, and who may ask."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    password: str | None = None
    token: str = "token-1"


def problem(kind: str, status: int, title: str, detail: str = "", hint: str = "") -> Answer:
    """An RFC 9457 answer."""
    return Answer({"title": title, "status": status, "detail": detail, "hint": hint, "kind": kind}, status)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The nodes LOCAL and, through tunnels, others; with a list of what was asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.path = path
        self.asked: list[Asked] = []
        self.peers = {LOCAL: Peer(), REMOTE: Peer()}
        self.names = {"far": REMOTE, REMOTE: REMOTE}
        self.lock = threading.Lock()
        self.asked_info = threading.Event()
        for peer_id, peer in self.peers.items():
            name = "near" if peer_id == LOCAL else "far"
            info = {"peer_id": peer_id, "name": name, "version": "9.9", "uptime": 5.0, "networks": []}
            peer.answers["GET /v1/info"] = [Answer(info)]

    @property
    def calls(self) -> list[str]:
        """What was asked, without the questions for /v1/info."""
        return [asked.call for asked in self.asked if asked.call != "GET /v1/info"]

    def answer(self, call: str, *answers: Answer, peer: str = LOCAL) -> None:
        """Answer this call so, one after the other; the last stays."""
        self.peers[peer].answers[call] = list(answers)

    def document(self, call: str, document: Any, peer: str = LOCAL) -> None:
        """Answer this call with this document."""
        self.answer(call, Answer(document), peer=peer)


class Handler(BaseHTTPRequestHandler):
    """One connection; after a tunnel is made, one to the other node."""

    protocol_version = "HTTP/1.1"
    server: Server
    peer = LOCAL

    def setup(self) -> None:
        super().setup()
        self.client_address = ("unix", 0)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _serve(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        call = f"{self.command} {unquote(url.path)}"
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        given = token if scheme == "Bearer" else None
        with self.server.lock:
            self.server.asked.append(Asked(self.peer, call, body, given, query))
            answer = self._choose(call, body, given)
        if call == "GET /v1/info":
            # Before it is sent: who only looks whether anything comes is gone after a byte.
            self.server.asked_info.set()
        if answer is not None and answer.after_info:
            self.server.asked_info.wait(10)
        if answer is None:
            self._tunnel(self.server.names[call.removeprefix(TUNNEL)])
        elif answer.lines is not None:
            self._stream(answer)
        else:
            self._send(answer)

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def _choose(self, call: str, body: Any, token: str | None) -> Answer | None:
        peer = self.server.peers[self.peer]
        if call == "POST /v1/login" and peer.password is not None:
            if body["password"] != peer.password:
                return problem("denied", 403, "logging in failed", "the user or the password is wrong")
            expires = "2030-01-01T00:00:00Z"
            return Answer({"token": peer.token, "user": body["user"], "expires": expires})
        free = call in ("GET /v1/info", "GET /v1/id")
        if peer.password is not None and not free and token != peer.token:
            return problem("login-required", 401, "reading failed", "you are not logged in")
        answers = peer.answers.get(call)
        if answers:
            return answers[0] if len(answers) == 1 else answers.pop(0)
        if call.removeprefix(TUNNEL) in self.server.names:
            return None
        if call.startswith(TUNNEL):
            return problem("unreachable", 502, "reaching the node failed", "no path to it", "Try later")
        return problem("not-found", 404, "asking failed", f"there is no {call}")

    def _tunnel(self, peer: str) -> None:
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "hive-api")
        self.send_header("Hive-Peer", peer)
        self.end_headers()
        self.close_connection = False
        self.peer = peer

    def _send(self, answer: Answer) -> None:
        body = json.dumps(answer.document).encode() if answer.raw is None else answer.raw
        self.send_response(answer.status)
        kind = "application/problem+json" if answer.status >= 400 else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, answer: Answer) -> None:
        assert answer.lines is not None
        self.send_response(200)
        self.send_header("Content-Type", "application/jsonl")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for line in answer.lines:
                data = json.dumps(line).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            if answer.hold:
                self.rfile.read(1)  # until the client goes
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True
