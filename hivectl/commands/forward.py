"""``hivectl forward``: a tunnel that lives as long as the command."""

from __future__ import annotations

import click

from hivectl import output
from hivectl.commands.proxy import NETWORK_HELP
from hivectl.options import Command, Settings
from hivectl.parameters import NETWORK, PORT, TARGET, Target
from hived.schema import ForwardEvent, ForwardRequest


@click.command(cls=Command)
@click.argument("target", metavar="NODE:PORT", type=TARGET)
@click.argument("port", metavar="[LOCALPORT]", type=PORT, required=False)
@click.option("--bind", metavar="ADDR", help="Listen on this address. Default: the loopback ones.")
@click.option("--network", metavar="N", type=NETWORK, help=NETWORK_HELP)
@click.pass_obj
def forward(
    settings: Settings, target: Target, port: int | None, bind: str | None, network: str | None
) -> None:
    """Tunnel a port to NODE:PORT until Ctrl-C. LOCALPORT is the same port when left out.

    NODE must let it in: on it, hivectl proxy add ingress THISNODE:LOCALPORT PORT.
    """
    body = ForwardRequest(
        peer=target.peer, peer_port=target.port, port=port or target.port, network=network, bind=bind
    )
    for event in settings.session().stream("POST", "/v1/forward", ForwardEvent, body):
        if settings.json:
            output.record(event.raw)
        else:
            _say(event.value, target, settings.node)


def _say(event: ForwardEvent, target: Target, node: str | None) -> None:
    if event.event == "listening":
        host = f"[{event.bind}]" if ":" in event.bind else event.bind or "localhost"
        where = f"on {node}, {host}" if node else host
        output.note(f"{where}:{event.port} goes to {target.peer}, port {target.port}. Ctrl-C ends it.")
        if event.detail:
            output.note(f"hivectl: warning: {event.detail}.")
        output.note(
            f"If it is not done yet, type on {target.peer}:"
            f" hivectl proxy add ingress {event.origin}:{event.port} {target.port}"
        )
    elif event.event == "connection":
        output.note(f"connection {event.detail}".rstrip())
    else:
        output.note(f"hivectl: a connection failed: {event.detail}")
