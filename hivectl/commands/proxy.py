"""``hivectl proxy``: TCP services passed between nodes."""

from __future__ import annotations

import click

from hivectl import output, report
from hivectl.options import Command, Noun, Settings
from hivectl.output import Table
from hivectl.parameters import NETWORK, PORT, PROXY, TARGET, Target
from hivectl.session import Session, path
from hived.errors import failed
from hived.schema import AddProxy, Proxy

NETWORK_HELP = "The network to use. Default: the only one shared with that node."


@click.command("ls", cls=Command)
@click.option("--watch", is_flag=True, help="Go on, and print them again after each change.")
@click.pass_obj
def ls(settings: Settings, watch: bool) -> None:
    """List this node's proxies."""
    report.fetch(settings, "/v1/proxies", list[Proxy], lambda rows: output.show(table(rows)), watch=watch)


proxy = Noun("proxy", help="TCP services passed between nodes; alone: list the proxies.", listing=ls)
add = Noun(
    "add",
    help="Add a proxy: egress where the clients are, and ingress where the service is.",
)
proxy.add_command(add)


def table(rows: list[Proxy]) -> Table:
    """The proxies as a table."""
    return Table(
        ("id", "direction", "state", "from", "to", "network", "connections", "in", "out", "error"),
        [
            (
                str(row.id),
                row.direction,
                row.state,
                _from(row),
                _to(row),
                row.network,
                str(row.connections),
                output.size(row.bytes_in),
                output.size(row.bytes_out),
                _error(row) or row.warning or "-",
            )
            for row in rows
        ],
        "There is no proxy. Type: hivectl proxy add egress PORT NODE:PORT (or: ingress NODE:PORT PORT)",
    )


def _from(row: Proxy) -> str:
    return _at(row.bind or "*", row.port) if row.direction == "egress" else f"{_peer(row)}:{row.peer_port}"


def _to(row: Proxy) -> str:
    return (
        f"{_peer(row)}:{row.peer_port}" if row.direction == "egress" else _at(row.to or "localhost", row.port)
    )


def _error(row: Proxy) -> str:
    """What is wrong and when it came up, which an older hived does not say."""
    if row.error and row.error_at:
        return f"{row.error} ({output.when(row.error_at)})"
    return row.error or ""


def _peer(row: Proxy) -> str:
    return row.peer_name or row.peer_id


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@add.command()
@click.argument("port", type=PORT)
@click.argument("target", metavar="NODE:PORT", type=TARGET)
@click.option("--bind", metavar="ADDR", help="Listen on this address only. Default: all addresses.")
@click.option("--network", metavar="N", type=NETWORK, help=NETWORK_HELP)
@click.pass_obj
def egress(settings: Settings, port: int, target: Target, bind: str | None, network: str | None) -> None:
    """Listen on PORT here. Connections go to NODE:PORT, where an ingress proxy takes them."""
    body = AddProxy(
        direction="egress", peer=target.peer, port=port, peer_port=target.port, network=network, bind=bind
    )
    _add(settings, body)


@add.command()
@click.argument("origin", metavar="NODE:PORT", type=TARGET)
@click.argument("port", type=PORT)
@click.option("--to", metavar="HOST", help="Pass them to PORT of this host. Default: this machine.")
@click.option("--network", metavar="N", type=NETWORK, help=NETWORK_HELP)
@click.pass_obj
def ingress(settings: Settings, origin: Target, port: int, to: str | None, network: str | None) -> None:
    """Serve PORT of this machine. Only connections from the egress proxy at NODE:PORT come in."""
    body = AddProxy(
        direction="ingress", peer=origin.peer, port=port, peer_port=origin.port, network=network, to=to
    )
    _add(settings, body)


def _add(settings: Settings, body: AddProxy) -> None:
    session = settings.session()
    answer = session.call("POST", "/v1/proxies", Proxy, body)
    added = answer.value
    report.reply(settings, answer, lambda row: _added(row, session, body.network))
    output.warn(added.warning)
    _check(added)


def _added(row: Proxy, session: Session, network: str | None) -> None:
    """What listens where, and what the other node needs."""
    option = f" --network {network}" if network else ""
    me = session.peer_id()
    if row.direction == "egress":
        where = f"port {row.port} of all addresses" if row.bind is None else _at(row.bind, row.port)
        output.say(f"Proxy {row.id}: {where} goes to {_peer(row)}, port {row.peer_port}.")
        other = f"ingress {me}:{row.port} {row.peer_port}"
    else:
        output.say(f"Proxy {row.id}: {_peer(row)}, port {row.peer_port}, may come in to {_to(row)}.")
        other = f"egress {row.peer_port} {me}:{row.port}"
    output.note(f"If it is not done yet, type on {_peer(row)}: hivectl proxy add {other}{option}")


def _check(row: Proxy) -> None:
    if row.state == "error":
        raise failed(f"proxy {row.id} does not run", row.error or "", "hived keeps trying: hivectl proxy")


@proxy.command()
@click.argument("proxy_id", metavar="ID", type=PROXY)
@click.pass_obj
def show(settings: Settings, proxy_id: int) -> None:
    """Show one proxy."""
    report.fetch(settings, path("proxies", proxy_id), Proxy, _detail)


def _detail(row: Proxy) -> None:
    output.pairs(
        [
            ("id", str(row.id)),
            ("direction", row.direction),
            ("kind", row.kind),
            ("state", row.state),
            *([("error", _error(row))] if row.error else []),
            ("from", _from(row)),
            ("to", _to(row)),
            ("peer_id", row.peer_id),
            ("network", row.network),
            ("connections", f"{row.connections} now, {row.connections_total} in all"),
            ("in", output.size(row.bytes_in)),
            ("out", output.size(row.bytes_out)),
            *([("warning", row.warning)] if row.warning else []),
        ]
    )


@proxy.command()
@click.argument("proxy_id", metavar="ID", type=PROXY)
@click.pass_obj
def rm(settings: Settings, proxy_id: int) -> None:
    """Remove a proxy and end its connections."""
    report.change(settings, "DELETE", path("proxies", proxy_id), f"Proxy {proxy_id} is removed.")


@proxy.command()
@click.argument("proxy_id", metavar="ID", type=PROXY)
@click.pass_obj
def enable(settings: Settings, proxy_id: int) -> None:
    """Let a disabled proxy run again."""
    _check(_switch(settings, proxy_id, "enable"))


@proxy.command()
@click.argument("proxy_id", metavar="ID", type=PROXY)
@click.pass_obj
def disable(settings: Settings, proxy_id: int) -> None:
    """Stop a proxy and keep it."""
    _switch(settings, proxy_id, "disable")


def _switch(settings: Settings, proxy_id: int, verb: str) -> Proxy:
    answer = settings.session().call("POST", path("proxies", proxy_id, verb), Proxy)
    report.reply(settings, answer, lambda row: output.say(f"Proxy {row.id} is {row.state}."))
    return answer.value
