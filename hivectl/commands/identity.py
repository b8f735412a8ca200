"""``hivectl id`` and ``hivectl rename``: who this node is."""

from __future__ import annotations

import click

from hivectl import output, report
from hivectl.options import Command, Settings
from hivectl.parameters import NAME
from hived.schema import Identity, Rename


@click.command("id", cls=Command)
@click.option("--base64", is_flag=True, help="Print only the identity string, for: hivectl register.")
@click.pass_obj
def show_id(settings: Settings, base64: bool) -> None:
    """Show who this node is, and the string that makes it known to others."""

    def human(identity: Identity) -> None:
        if base64:
            output.say(identity.identity)
        else:
            output.pairs(
                [
                    ("peer_id", identity.peer_id),
                    ("name", identity.name),
                    ("addresses", identity.addresses or ["none"]),
                    ("identity", identity.identity),
                ]
            )
            output.note("To make it known, type on another node: hivectl register IDENTITY")
        for warning in identity.warnings:
            output.warn(warning)

    report.fetch(settings, "/v1/id", Identity, human)


@click.command(cls=Command)
@click.argument("name", type=NAME)
@click.pass_obj
def rename(settings: Settings, name: str) -> None:
    """Give this node another NAME."""
    report.change(settings, "PUT", "/v1/name", f"This node is now called {name}.", Rename(name=name))
