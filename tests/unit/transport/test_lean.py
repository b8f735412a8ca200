"""py-libp2p as hived imports it: little of it, and all of it to who asks."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _run(code: str, *before: str) -> str:
    done = subprocess.run(
        [*before, sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_daemon_imports_no_more_than_it_uses() -> None:
    unused = {"requests", "httpx", "prometheus_client", "wsproto", "libp2p.kad_dht", "libp2p.host.basic_host"}
    loaded = set(_run("import sys, hived.daemon; print(*sys.modules)").split())
    assert "libp2p.peer.id" in loaded
    assert not loaded & unused


@pytest.mark.parametrize(
    "code",
    [
        "from libp2p import new_host; print(new_host.__name__)",
        "import libp2p.host.basic_host as module; print(module.BasicHost.__name__)",
        "import libp2p; print(libp2p.__version__)",
        "from libp2p.relay.circuit_v2.pb import circuit_pb2; print(circuit_pb2.HopMessage.__name__)",
        "from libp2p.stream_muxer.yamux.yamux import Yamux; print(Yamux.__name__)",
    ],
)
def test_who_wants_more_gets_it(code: str) -> None:
    """As without hived."""
    assert _run(f"import hived.daemon; {code}") == _run(code)


def test_what_is_not_there_is_an_error() -> None:
    said = _run("import hived.daemon, libp2p; print(hasattr(libp2p, 'nothing'), hasattr(libp2p, 'new_host'))")
    assert said == "False True"


@pytest.mark.requires("netns")
def test_a_machine_without_a_dns_configuration_is_no_obstacle() -> None:
    hidden = ["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /etc/resolv.conf; exec "$@"', "sh"]
    assert _run("import hived.daemon; print('there')", *hidden) == "there"
