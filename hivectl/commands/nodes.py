"""``hivectl nodes``: the nodes that this one knows."""

from __future__ import annotations

import click

from hivectl import output, report
from hivectl.options import Command, Noun, Settings
from hivectl.output import Table
from hivectl.parameters import NAME, NETWORK, NODE
from hivectl.session import path
from hivectl.usage import wrong
from hived.schema import Node, NodeDetail, SetAlias


@click.command("ls", cls=Command)
@click.option("--network", metavar="N", type=NETWORK, help="Only those in this network.")
@click.option("--watch", is_flag=True, help="Go on, and print them again after each change.")
@click.pass_obj
def ls(settings: Settings, network: str | None, watch: bool) -> None:
    """List the known nodes and how they are reached."""
    query = {"network": network} if network else None
    report.fetch(
        settings, "/v1/nodes", list[Node], lambda rows: output.show(table(rows)), watch=watch, query=query
    )


nodes = Noun("nodes", help="The nodes that this one knows; alone: list them.", listing=ls)


def table(rows: list[Node]) -> Table:
    """The nodes as a table."""
    names = {row.peer_id: row.name or row.peer_id for row in rows}
    return Table(
        ("peer_id", "node_name", "latest_contact", "path", "rtt_ms", "network", "alias", "version"),
        [
            (
                row.peer_id,
                row.name or "-",
                output.when(row.latest_contact),
                "blocked" if row.blocked else _way(row, names),
                "-" if row.rtt_ms is None else f"{row.rtt_ms:.1f}",
                row.network or "-",
                row.alias or "-",
                row.version or "-",
            )
            for row in rows
        ],
        "No node is known. Join a network (hivectl networks), then type: hivectl register ID",
    )


def _way(row: Node, names: dict[str, str]) -> str:
    way = f"relayed via {names.get(row.relay, row.relay)}" if row.relay else row.path
    return f"{way}, silent {output.duration(row.silent)}" if row.silent else way


@nodes.command()
@click.argument("node", type=NODE)
@click.pass_obj
def show(settings: Settings, node: str) -> None:
    """Show one node in full: its addresses, and why it is not reached."""
    report.fetch(settings, path("nodes", node), NodeDetail, _detail)


def _detail(node: NodeDetail) -> None:
    relay = f" via {node.relay_name or node.relay}" if node.relay else ""
    why = f" ({node.why})" if node.why else ""
    silent = f", nothing heard for {output.duration(node.silent)}" if node.silent else ""
    addresses = [
        f"{row.address} (from {row.source}{f'; {row.last_error}' if row.last_error else ''})"
        for row in node.addresses
    ]
    output.pairs(
        [
            ("peer_id", node.peer_id),
            ("name", node.name or "-"),
            ("alias", node.alias or "-"),
            ("networks", node.networks or ["none"]),
            ("path", f"{node.path}{relay}{why}{silent}"),
            ("rtt_ms", "-" if node.rtt_ms is None else f"{node.rtt_ms:.1f}"),
            ("latest_contact", output.when(node.latest_contact)),
            ("last_contact_here", output.when(node.last_contact_here)),
            ("record_issued", output.when(node.record_issued)),
            ("version", node.version or "-"),
            ("addresses", addresses or ["none"]),
            *([("blocked", "yes")] if node.blocked else []),
            *([("last_error", node.last_error)] if node.last_error else []),
        ]
    )


@nodes.command()
@click.argument("node", type=NODE)
@click.argument("name", metavar="[ALIAS]", type=NAME, required=False)
@click.option("--rm", is_flag=True, help="Remove its alias.")
@click.pass_obj
def alias(settings: Settings, node: str, name: str | None, rm: bool) -> None:
    """Give a node an ALIAS, a name of your own for it on this node."""
    if (name is None) != rm:
        raise wrong("either an ALIAS or --rm is needed", "Type: hivectl nodes alias --help")
    said = f"{node} has no alias now." if rm else f"{node} is now also called {name}."
    report.change(settings, "PUT", path("nodes", node, "alias"), said, SetAlias(alias=name))


@nodes.command()
@click.argument("node", type=NODE)
@click.pass_obj
def forget(settings: Settings, node: str) -> None:
    """Hide a node until there is news of it."""
    report.change(settings, "DELETE", path("nodes", node), f"{node} is forgotten until there is news of it.")


@nodes.command()
@click.argument("node", type=NODE)
@click.pass_obj
def block(settings: Settings, node: str) -> None:
    """Refuse every connection from and to a node; what lives is cut at once.

    This node alone turns it away. It keeps the network's password: to shut it out of the
    whole network, change that: hivectl networks rekey NETWORK.
    """
    report.change(settings, "PUT", path("nodes", node, "block"), f"{node} is blocked.")


@nodes.command()
@click.argument("node", type=NODE)
@click.pass_obj
def unblock(settings: Settings, node: str) -> None:
    """Let a blocked node in again."""
    report.change(settings, "DELETE", path("nodes", node, "block"), f"{node} is no longer blocked.")
