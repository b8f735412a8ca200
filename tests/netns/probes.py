"""Sockets on a lab's machines, and what they find out about what lies between.

All of it is done in the test's own process: a socket made in a namespace works from anywhere. A packet that
passes is there a moment after it was sent, or after the line's delay; that none passes shows in that a later
one, which must pass, is the first to come. Only an unanswered SYN has to be waited for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import selectors
import socket
import time
from collections.abc import Sequence
from typing import Literal

from tests.netns.host import Host

Address = tuple[str, int]
Kind = Literal["udp", "tcp"]
Outcome = Literal["in", "refused", "silence"]
PORT = 4001
# How long silence has to be to count as such; a packet that passes takes a thousandth of it.
SILENCE_SECONDS = 0.5
ANSWER_SECONDS = 10.0


def udp(host: Host, port: int = 0, family: int = socket.AF_INET) -> socket.socket:
    made = host.socket(family, socket.SOCK_DGRAM)
    made.settimeout(ANSWER_SECONDS)
    made.bind(("", port))
    return made


def tcp(host: Host, port: int = 0, family: int = socket.AF_INET) -> socket.socket:
    """A TCP socket whose port others on the machine may have too, as a hole puncher's."""
    made = host.socket(family, socket.SOCK_STREAM)
    made.settimeout(ANSWER_SECONDS)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("", port))
    return made


def listener(host: Host, port: int, family: int = socket.AF_INET) -> socket.socket:
    made = tcp(host, port, family)
    made.listen()
    return made


class Endpoint:
    """A public port, UDP and TCP, that tells whom it sees."""

    def __init__(self, host: Host, port: int, family: int = socket.AF_INET) -> None:
        self.address = ((host.address if family == socket.AF_INET else host.address6) or "", port)
        self.udp = udp(host, port, family)
        self.tcp = listener(host, port, family)
        self.accepted: list[socket.socket] = []

    def sees(self, kind: Kind, host: Host, port: int = PORT, via: socket.socket | None = None) -> Address:
        """The address of a host's port as it looks from here. ``via``: the UDP socket that has the port."""
        if kind == "udp":
            with contextlib.ExitStack() as stack:
                sender = via or stack.enter_context(udp(host, port))
                sender.sendto(b"?", self.address)
                _, seen = self.udp.recvfrom(100)
        else:
            outgoing = tcp(host, port)
            outgoing.connect(self.address)
            incoming, seen = self.tcp.accept()
            # Both stay open: a router that has seen an end may forget the mapping.
            self.accepted += [outgoing, incoming]
        return str(seen[0]), int(seen[1])


def connect(host: Host, to: Address, *, seconds: float = ANSWER_SECONDS) -> Outcome:
    """What becomes of a TCP connection that a host begins."""
    with tcp(host, family=socket.AF_INET6 if ":" in to[0] else socket.AF_INET) as made:
        made.settimeout(seconds)
        try:
            made.connect(to)
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silence"
        return "in"


def expect(outcome: Outcome, host: Host, to: Address) -> None:
    """That a TCP connection that a host begins has this outcome."""
    assert connect(host, to, seconds=SILENCE_SECONDS if outcome == "silence" else ANSWER_SECONDS) == outcome


def passes(sender: socket.socket, receiver: socket.socket, to: Address, trusted: socket.socket) -> bool:
    """Whether a datagram gets from one socket to another.

    ``trusted`` sends the next one to the same address, which must pass.
    """
    sender.sendto(b"unsolicited", to)
    trusted.sendto(b"trusted", to)
    received = receiver.recv(100)
    if received == b"trusted":
        return arrived(receiver)
    assert (received, receiver.recv(100)) == (b"unsolicited", b"trusted")
    return True


def arrived(receiver: socket.socket) -> bool:
    """Whether something waits at a socket; it is taken."""
    return bool(select.select([receiver], [], [], 0)[0] and receiver.recv(100))


def open_at_once(
    hosts: Sequence[Host], targets: Sequence[Address], port: int = PORT, seconds: float = ANSWER_SECONDS
) -> tuple[Outcome, ...]:
    """Let two hosts connect to each other's address at the same time; what each gets in ``seconds``."""
    outcomes: list[Outcome] = ["silence", "silence"]
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for number, (host, target) in enumerate(zip(hosts, targets, strict=True)):
            made = stack.enter_context(tcp(host, port))
            made.setblocking(False)
            assert made.connect_ex(target) == errno.EINPROGRESS
            selector.register(made, selectors.EVENT_WRITE, number)
        deadline = time.monotonic() + seconds
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                error = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                assert error in {0, errno.ECONNREFUSED}, os.strerror(error)
                outcomes[key.data] = "refused" if error else "in"
                selector.unregister(key.fileobj)
    return tuple(outcomes)


def punch(hosts: Sequence[Host], targets: Sequence[Address], port: int = PORT) -> tuple[bool, ...]:
    """Let two hosts send UDP to each other's address from one port; which of them is reached."""
    with udp(hosts[0], port) as first, udp(hosts[1], port) as second:
        for _ in range(2):
            for sender, target in ((first, targets[0]), (second, targets[1])):
                sender.sendto(b"punch", target)
        reached = []
        for receiver, seconds in ((first, SILENCE_SECONDS), (second, SILENCE_SECONDS / 10)):
            receiver.settimeout(seconds)
            try:
                reached.append(receiver.recv(100) == b"punch")
            except TimeoutError:
                reached.append(False)
        return tuple(reached)
