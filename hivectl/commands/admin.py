"""``hivectl admin``: who may administer this node."""

from __future__ import annotations

import click

from hivectl import output, passwords, prompts, report
from hivectl.options import Command, Noun, Settings
from hivectl.output import Table
from hivectl.parameters import USER
from hivectl.session import Reply, Session, path
from hived.errors import HiveError, Kind, usage
from hived.schema import AdminRow, Done, SetAdmin


@click.command("ls", cls=Command)
@click.pass_obj
def ls(settings: Settings) -> None:
    """List this node's admin users."""
    report.fetch(settings, "/v1/admins", list[AdminRow], lambda rows: output.show(table(rows)))


admin = Noun("admin", help="Who may administer this node; alone: list the admin users.", listing=ls)


def table(rows: list[AdminRow]) -> Table:
    """The admin users as a table."""
    return Table(
        ("user", "created"),
        [(row.user, output.when(row.created)) for row in rows],
        "There is no admin user. Type: sudo hivectl admin set USER",
    )


@admin.command("set")
@click.argument("user", type=USER)
@passwords.stdin_option
@click.pass_obj
def set_password(settings: Settings, user: str, password_stdin: bool) -> None:
    """Make an admin USER, or give one a new password."""
    if password_stdin:
        password = passwords.from_stdin()
    elif prompts.interactive():
        password = prompts.new_password(f"New password of {user}")
    else:
        raise usage(
            f"setting the password of {user} failed",
            "there is no terminal to ask for it on",
            f"Pipe it: hivectl admin set {user} --password-stdin",
        )

    def human(done: Done) -> None:
        output.say(f"{user} is an admin of this node, with the new password.")
        output.note(done.note)

    report.reply(settings, _set(settings.session(), user, password), human)


def _set(session: Session, user: str, password: str) -> Reply[Done]:
    """Set it; when hived wants the old password, ask for that and try again."""
    url = path("admins", user)
    try:
        return session.call("PUT", url, Done, SetAdmin(password=password))
    except HiveError as error:
        if error.kind is not Kind.DENIED or not prompts.interactive():
            raise
        output.note(f"hivectl: {error.line()}")
    old = prompts.password(f"Old password of {user}")
    return session.call("PUT", url, Done, SetAdmin(password=password, old_password=old))


@admin.command()
@click.argument("user", type=USER)
@click.pass_obj
def rm(settings: Settings, user: str) -> None:
    """Remove an admin USER and end their sessions."""
    report.change(settings, "DELETE", path("admins", user), f"{user} is no longer an admin of this node.")
