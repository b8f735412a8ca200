"""A lab leaves nothing behind, however it ends, and nothing of it is outside namespaces of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.netns.doomed import END_SECONDS, doomed, ending, said, tell
from tests.netns.host import Host
from tests.netns.keeper import members
from tests.netns.lab import Lab

pytestmark = pytest.mark.requires("natlab")
# linux/rtnetlink.h
RTMGRP_LINK = 1

# A lab that says what it has made, then waits for a line. What runs in it does not end for politeness: a
# shell that ignores signals, with a child, and one in a session of its own; and there is a hived.
LAB = """
import json, os, signal, sys
from pathlib import Path
from tests.netns.keeper import members
from tests.netns.lab import Lab

lab = Lab(Path(sys.argv[1]), remove=True)
pub = lab.public("pub", delay_ms=1)
host = lab.lan("home", delay_ms=1, ipv6=True).host("a")
host.popen(["sh", "-c", "trap '' TERM HUP INT; setsid sleep 1000 & setsid -f sleep 1000; wait"])
lab.nodes(host)
namespaces = lab.namespaces.values()
pids = [lab.keeper.pid, *members({namespace.identity for namespace in namespaces})]
print(json.dumps({"pids": pids, "paths": [namespace.path for namespace in namespaces]}), flush=True)
how = sys.stdin.readline().strip()
if how == "close":
    lab.close()
elif how == "error":
    with lab:
        raise SystemExit("a test failed")
elif how == "exit":
    os._exit(0)
elif how == "kill the keeper":
    os.kill(lab.keeper.pid, signal.SIGKILL)
    lab.close()
signal.pause()
"""
WAYS = ["kill", "kill the group", "kill the keeper", "close", "error", "exit"]


def interfaces(host: Host | None = None) -> list[str]:
    """The network devices of a host, or the machine's own."""
    before = host.inside if host else []
    shown = subprocess.run([*before, "ip", "-json", "link"], capture_output=True, text=True, check=True)
    return sorted(link["ifname"] for link in json.loads(shown.stdout))


@pytest.mark.parametrize("how", WAYS)
def test_nothing_is_left(lab: Lab, tmp_path: Path, how: str) -> None:
    before = interfaces()
    with doomed(LAB, str(tmp_path / "doomed")) as process, contextlib.ExitStack() as stack:
        made = json.loads(said(process))
        # A cable into each of its namespaces: the internet, the public host, the LAN's switch, router and
        # host. The kernel takes it away with the namespace.
        assert len(made["paths"]) == 5
        witness = lab.public("witness")
        changes = stack.enter_context(witness.socket(socket.AF_NETLINK, socket.SOCK_RAW))
        changes.bind((0, RTMGRP_LINK))
        changes.settimeout(END_SECONDS)
        cables = {f"w{number}": path for number, path in enumerate(made["paths"])}
        for name, path in cables.items():
            witness.namespace.ip(f"link add name {name} type veth peer name {name} netns {path}")
        assert interfaces() == before
        # The keeper, two shuttles, the shell and its two children, hived.
        assert len(made["pids"]) >= 7
        with ending(made["pids"]):
            if how == "kill":
                process.kill()
            elif how == "kill the group":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                tell(process, how)
        while set(cables) & set(interfaces(witness)):
            changes.recv(65536)
    assert interfaces() == before
    assert not (tmp_path / "doomed").exists()


def test_what_others_have_put_there_ends_too(lab: Lab) -> None:
    """Such as a person's shell."""
    words = [*lab.public("pub").inside, "sh", "-c", "echo entered; sleep 1000"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "entered\n"
        lab.close()
        assert process.wait(END_SECONDS) == -signal.SIGKILL


def test_the_machine_itself_stays_as_it_is(lab: Lab) -> None:
    """What a lab sets, it sets in its namespaces; here all is as before, whatever that was."""
    keys = ["net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter", "net/ipv6/conf/default/accept_dad"]
    keys += ["net/ipv6/conf/all/forwarding", "net/netfilter/nf_conntrack_tcp_loose"]

    def settings() -> list[str]:
        rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
        return [Path("/proc/sys", key).read_text() for key in keys] + [rules]

    before = settings()
    router = lab.lan("home", ipv6=True).router
    router.change("sym")
    assert settings() == before
    assert router.namespace.call(settings)[:5] == ["1\n", "0\n", "0\n", "1\n", "0\n"]
    assert members({router.namespace.identity}) == []
