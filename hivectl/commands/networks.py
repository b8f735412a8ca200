"""``hivectl networks``: the networks that this node is in."""

from __future__ import annotations

import click

from hivectl import output, passwords, prompts, report
from hivectl.options import Command, Noun, Settings
from hivectl.output import Table
from hivectl.parameters import NAME
from hivectl.session import path
from hived.errors import usage
from hived.schema import CreateNetwork, NetworkCreated, NetworkRow


@click.command("ls", cls=Command)
@click.pass_obj
def ls(settings: Settings) -> None:
    """List this node's networks."""
    report.fetch(settings, "/v1/networks", list[NetworkRow], lambda rows: output.show(table(rows)))


networks = Noun("networks", help="The networks that this node is in; alone: list them.", listing=ls)


def table(rows: list[NetworkRow]) -> Table:
    """The networks as a table."""
    return Table(
        ("network", "members", "connected", "created"),
        [(row.name, str(row.members), str(row.connected), output.when(row.created)) for row in rows],
        "This node is in no network. Type: hivectl networks create NAME, or: hivectl networks join NAME",
    )


@networks.command()
@click.argument("name", type=NAME)
@passwords.options
@click.pass_obj
def create(
    settings: Settings, name: str, password: str | None, password_stdin: bool, password_file: str | None
) -> None:
    """Make a new network; without a password a strong one is generated and printed once."""
    body = CreateNetwork(name=name, password=passwords.given(password, password_stdin, password_file))

    def human(network: NetworkCreated) -> None:
        output.say(f"Network {network.name} is made.")
        if network.password:
            output.say(f"Its password: {network.password}")
            output.note("Keep it: it is not shown again.")
        output.warn(network.warning)
        output.note(f"On each other node, type: hivectl networks join {network.name}")
        output.note("Then make them known to each other: hivectl id --base64 there, hivectl register ID here")

    report.reply(settings, settings.session().call("POST", "/v1/networks", NetworkCreated, body), human)


@networks.command()
@click.argument("name", type=NAME)
@passwords.options
@click.pass_obj
def join(
    settings: Settings, name: str, password: str | None, password_stdin: bool, password_file: str | None
) -> None:
    """Enter a network that others are in, with its password."""
    secret = passwords.given(password, password_stdin, password_file)
    if secret is None:
        if not prompts.interactive():
            raise usage(
                f"joining {name} failed",
                "there is no terminal to ask for its password on",
                f"Pipe it with --password-stdin, or type: hivectl networks join {name} --password-file F",
            )
        secret = prompts.password(f"Password of network {name}")
    body = CreateNetwork(name=name, password=secret)

    def human(network: NetworkCreated) -> None:
        output.say(f"This node is in network {network.name}.")
        output.warn(network.warning)
        output.note(
            f"To meet another node, type: hivectl register ID --network {name}"
            " (its ID: hivectl id --base64 there)"
        )

    report.reply(settings, settings.session().call("POST", "/v1/networks", NetworkCreated, body), human)


@networks.command()
@click.argument("name", type=NAME)
@click.pass_obj
def leave(settings: Settings, name: str) -> None:
    """Leave a network; its proxies on this node end."""
    report.change(settings, "DELETE", path("networks", name), f"This node left network {name}.")
