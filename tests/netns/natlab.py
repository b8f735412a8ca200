"""A lab for people: nodes behind NATs, in one network, and a shell with `on NAME COMMAND` (docs/natlab.md).

    scripts/natlab [OPTIONS] [COMMAND...]

There is a public machine, pub, and one on each LAN, which is named as its LAN, or several, NAME-1 and so on.
All nodes are joined in the network "lab". The shell's end, or the COMMAND's, is the lab's.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from tests.integration.nodes import BIN, connected
from tests.netns import terminal
from tests.netns.lab import Lab
from tests.netns.namespace import LabError
from tests.netns.nat import MODES, Mode, Reject
from tests.netns.node import PlacedNode

NETWORK = "lab"
DEFAULT_LANS = ("home=prc", "office=sym")
JOIN_SECONDS = 60.0


def lan(text: str) -> tuple[str, Mode]:
    """A --lan's value."""
    name, _, wanted = text.partition("=")
    for mode in MODES:
        if mode == wanted:
            return name, mode
    raise argparse.ArgumentTypeError(f"{text!r} is not NAME=MODE with a MODE of {', '.join(MODES)}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="natlab",
        description="Open a lab of NATs with hived nodes in it, and a shell to use them. See docs/natlab.md.",
    )
    add = made.add_argument
    of = f"a LAN behind a router; MODE is one of {', '.join(MODES)} (default: {' '.join(DEFAULT_LANS)})"
    add("--lan", action="append", type=lan, metavar="NAME=MODE", help=of)
    add("--hosts", type=int, default=1, metavar="N", help="machines on each LAN (1)")
    add("--delay", type=float, default=0.0, metavar="MS", help="of each router's line, one way")
    add("--loss", type=float, default=0.0, metavar="PERCENT", help="of each router's line, each way")
    add("--reject", choices=get_args(Reject), default="drop", help="what a stranger's SYN gets (drop)")
    add("--ipv6", action="store_true", help="global IPv6 for all, behind a firewall on the LANs")
    add("command", nargs=argparse.REMAINDER, help="run this instead of a shell")
    return made


def build(lab: Lab, options: argparse.Namespace) -> None:
    """The networks that the options describe."""
    lab.public("pub", ipv6=options.ipv6)
    for name, mode in options.lan or map(lan, DEFAULT_LANS):
        made = lab.lan(
            name,
            mode,
            reject=options.reject,
            delay_ms=options.delay,
            loss_percent=options.loss,
            ipv6=options.ipv6,
        )
        for number in range(1, options.hosts + 1):
            made.host(name if options.hosts == 1 else f"{name}-{number}")


def join(nodes: Sequence[PlacedNode]) -> None:
    """Put all into one network; in the end each knows all, and is connected to the first."""
    first, *others = nodes
    first.create(NETWORK)
    for node in others:
        node.create(NETWORK)
        node.register(first, NETWORK)
    for node in others:
        node.await_row(first, connected, JOIN_SECONDS)
    for node in nodes:
        node.watch(["nodes", "ls", "--watch", "--json"], lambda rows: len(rows) == len(nodes), JOIN_SECONDS)


def write_on(lab: Lab, nodes: Sequence[PlacedNode]) -> Path:
    """The command `on`, as a file for any shell; the directory that it is in."""
    at = {node.name: node for node in nodes}
    cases = []
    for name, namespace in lab.namespaces.items():
        sets = [f"PATH={BIN}:$PATH"]
        if name in at:
            # Tokens of log-ins are not put among those of the person who is here.
            node = at[name]
            sets += [f"HIVE_SOCKET={node.socket}", f"XDG_STATE_HOME={node.directory / 'state'}"]
        cases.append(f'{name}) set -- {" ".join(namespace.inside)} env {" ".join(sets)} "$@" ;;')
    names = " ".join(lab.namespaces)
    directory = lab.directory / "bin"
    directory.mkdir()
    file = directory / "on"
    file.write_text(
        "\n".join(
            [
                "#!/bin/sh",
                "# on NAME COMMAND...: run a command, or a shell, on a machine of the lab",
                "name=${1:-}",
                "[ $# -eq 0 ] || shift",
                "[ $# -gt 0 ] || set -- bash",
                'case "$name" in',
                *cases,
                f'*) echo "on: NAME COMMAND..., where NAME is one of: {names}" >&2; exit 2 ;;',
                "esac",
                'exec "$@"',
                "",
            ]
        )
    )
    file.chmod(0o755)
    return directory


def table(lab: Lab, nodes: Sequence[PlacedNode]) -> str:
    """The nodes, where they are and how the internet sees them."""
    modes = {host.name: made.router.nat.mode for made in lab.lans.values() for host in made.hosts}
    rows = [("NAME", "NAT", "ADDRESS", "SEEN AS", "IPV6", "PEER ID")]
    for node in nodes:
        host = lab.hosts[node.name]
        mode = modes.get(node.name, "-")
        rows.append((node.name, mode, host.address, host.public, host.address6 or "-", node.peer_id))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[word.ljust(width) for word, width in zip(row, widths, strict=True)] for row in rows]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def guide(lab: Lab, directory: Path) -> str:
    """What a person can type."""
    some, *others = lab.hosts
    other = others[0] if others else some
    router = next(name for name in lab.namespaces if name.endswith("-router"))
    lines = [
        f"on {other} hivectl nodes",
        f"on {other} ip address",
        f"on {some}                       # a shell there",
        f"on {router} conntrack -L",
        f"{directory}/on NAME ...   # from another terminal, as root",
        " ".join(["nsenter", *lab.namespaces[other].inside[1:], "COMMAND"]),
    ]
    machines = ", ".join(lab.namespaces)
    return "\n".join([f"Machines: {machines}. Type for example:", *[f"    {line}" for line in lines]])


def interact(directory: Path, command: Sequence[str]) -> int:
    """Run the command, or a shell, with `on` in its PATH; how it ended."""
    environment = {**os.environ, "PATH": f"{directory}:{BIN}:{os.environ['PATH']}"}
    words = list(command)
    if not words:
        start = directory / "bashrc"
        path = shlex.quote(environment["PATH"])
        start.write_text(f'[ ! -f ~/.bashrc ] || . ~/.bashrc\nPATH={path}\nPS1="(natlab) $PS1"\n')
        words = ["bash", "--rcfile", str(start)]
    terminal.leave_interrupts()
    return subprocess.run(words, env=environment, check=False).returncode


def main() -> int:
    options = terminal.options(parser(), "natlab")
    # Short, for a Unix socket's path holds 107 bytes.
    with Lab(Path(tempfile.mkdtemp(prefix="natlab-", dir="/tmp")), remove=True) as lab:
        try:
            build(lab, options)
            print(f"natlab: starting {len(lab.hosts)} nodes", file=sys.stderr)
            nodes = lab.nodes(*lab.hosts.values())
            join(nodes)
        except (AssertionError, LabError, ValueError) as error:
            print(f"natlab: {error}", file=sys.stderr)
            return 1
        directory = write_on(lab, nodes)
        print(f"{table(lab, nodes)}\n\n{guide(lab, directory)}\n", file=sys.stderr)
        status = interact(directory, options.command)
    print("natlab: all of it is gone", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
