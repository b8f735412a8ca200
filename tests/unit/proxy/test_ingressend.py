"""Dialling a target: what is no target."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap

import pytest

from hived.proxy.ingressend import Dialing, ephemeral_ports
from hived.transport.budget import Budget
from hived.transport.limits import MuxLimits
from hived.transport.outbox import Outbox
from hived.transport.plane import Plane
from hived.transport.session import Session
from hived.transport.socketend import abort
from hived.transport.stream import Stream
from tests.needs import program

# In a network of its own, where the kernel has one port to dial from and it is the one that is dialled.
DIALS_ITSELF = """
    import sys
    from pathlib import Path
    import trio
    from hived.proxy.ingressend import Dialing, ephemeral_ports
    from hived.transport import planethread
    from hived.transport.budget import Budget
    from hived.transport.limits import MuxLimits
    from hived.transport.outbox import Outbox
    from hived.transport.plane import Plane
    from hived.transport.session import Session
    from hived.transport.stream import Stream

    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40001")
    assert list(ephemeral_ports()) == [40000, 40001]

    async def main():
        plane, done, found = Plane(), trio.Event(), []
        def dialled(dialing, sock, why, events):
            found.append("connected" if sock else why)
            plane.tell(done.set)
        nobody = lambda stream: None
        parts = dict(limits=MuxLimits(), outbox=Outbox(), budget=Budget(), on_incoming=nobody)
        session = Session(initiator=False, **parts)
        dialing = Dialing(plane, Stream(1, session), [(sys.argv[1], 40000)], dialled)
        async with planethread.running(plane):
            plane.call(dialing.start)
            with trio.fail_after(10):
                await done.wait()
        print(found)

    trio.run(main)
"""


@pytest.mark.root
@pytest.mark.parametrize("address", ["127.0.0.1", "10.99.0.1"])
def test_a_connection_to_itself_is_none(address: str) -> None:
    """10.99.0.1: not asked twice, but told by the loop."""
    unshare, script = program("unshare") or "unshare", textwrap.dedent(DIALS_ITSELF)
    inner = 'ip link set lo up && ip addr add 10.99.0.1/32 dev lo; exec "$@"'
    command = [unshare, "--net", "--mount", "sh", "-c", inner, "sh", sys.executable, "-c", script, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("['connection refused']\n", 0), done.stderr


def test_the_ports_that_the_kernel_dials_from() -> None:
    assert 0 < ephemeral_ports().start < ephemeral_ports().stop <= 65536


def test_a_target_that_resets_at_once_is_not_mistaken() -> None:
    """Its reset may come between the connect and the look at it: no defect, and no connection to itself."""
    session = Session(
        initiator=False,
        limits=MuxLimits(),
        outbox=Outbox(),
        budget=Budget(),
        on_incoming=lambda stream: None,
    )
    plane = Plane()
    try:
        dialing = Dialing(plane, Stream(1, session), [], lambda *_: None)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            dialing._port = listener.getsockname()[1]
            with socket.create_connection(listener.getsockname()) as sock:
                server, _ = listener.accept()
                abort(server)
                with pytest.raises(OSError):
                    # Once its reset has come, there is no peer any more.
                    sock.recv(1)
                with pytest.raises(OSError, match="not connected"):
                    sock.getpeername()
                assert dialing._port in ephemeral_ports()
                assert not dialing._is_own(sock)
    finally:
        plane.close()
