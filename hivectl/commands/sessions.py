"""``hivectl sessions``: who is logged in to this node."""

from __future__ import annotations

import click

from hivectl import output, report
from hivectl.options import Command, Noun, Settings
from hivectl.output import Table
from hivectl.parameters import SESSION
from hivectl.session import path
from hived.schema import SessionRow


@click.command("ls", cls=Command)
@click.pass_obj
def ls(settings: Settings) -> None:
    """List the sessions."""
    report.fetch(settings, "/v1/sessions", list[SessionRow], lambda rows: output.show(table(rows)))


sessions = Noun("sessions", help="Who is logged in to this node; alone: list the sessions.", listing=ls)


def table(rows: list[SessionRow]) -> Table:
    """The sessions as a table."""
    return Table(
        ("id", "user", "bound_to", "created", "expires", "current"),
        [
            (
                str(row.id),
                row.user,
                row.bound_to,
                output.when(row.created),
                row.expires,
                "yes" if row.current else "no",
            )
            for row in rows
        ],
        "Nobody is logged in. Type: hivectl login",
    )


@sessions.command()
@click.argument("session_id", metavar="ID", type=SESSION)
@click.pass_obj
def rm(settings: Settings, session_id: int) -> None:
    """End a session, wherever it is."""
    report.change(settings, "DELETE", path("sessions", session_id), f"Session {session_id} is ended.")
