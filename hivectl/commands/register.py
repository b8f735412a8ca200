"""``hivectl register``: make another node known to this one."""

from __future__ import annotations

import click

from hivectl import output, report
from hivectl.options import Command, Settings
from hivectl.parameters import NETWORK
from hivectl.usage import wrong
from hived.errors import unreachable
from hived.schema import Registered, RegisterRequest

MAX_LENGTH = 16384  # schema.RegisterRequest's


@click.command(cls=Command)
@click.argument("identity", metavar="ID")
@click.option(
    "--network", metavar="N", type=NETWORK, help="The network to meet it in. Default: the only one."
)
@click.pass_obj
def register(settings: Settings, identity: str, network: str | None) -> None:
    """Make another node known to this one. ID is what ``hivectl id --base64`` prints there."""
    identity = "".join(identity.split())  # a terminal's line breaks come along when it is copied
    if not identity or len(identity) > MAX_LENGTH:
        raise wrong("this is no identity string", "On the other node, type: hivectl id --base64")
    body = RegisterRequest(identity=identity, network=network)
    answer = settings.session().call("POST", "/v1/register", Registered, body)
    result = answer.value
    report.reply(settings, answer, _human)
    if result.state == "pending":
        why = f"{result.detail.rstrip('.')}. hived keeps trying" if result.detail else "hived keeps trying"
        raise unreachable(f"registering {result.peer_id}", why, "See: hivectl nodes")


def _human(result: Registered) -> None:
    if result.state == "pending":
        output.say(f"{result.peer_id} is registered for network {result.network}: pending")
        return
    output.say(f"{result.peer_id} joined network {result.network}")
    output.note(result.detail)
    output.note("See it with: hivectl nodes")
