"""``hivectl login`` and ``hivectl logout``: a session with a node's admin password."""

from __future__ import annotations

import click

from hivectl import output, passwords, prompts, report
from hivectl.options import Command, Settings
from hivectl.parameters import NAME
from hivectl.session import DEFAULT_USER
from hived.errors import HiveError, Kind
from hived.schema import Done


@click.command(cls=Command)
@click.option(
    "--user", metavar="U", type=NAME, help=f"The admin user. Default: asked for, else {DEFAULT_USER}."
)
@passwords.stdin_option
@click.option(
    "--yes", is_flag=True, help="Do not ask whether the peer ID is right on the first log-in to it."
)
@click.pass_obj
def login(settings: Settings, user: str | None, password_stdin: bool, yes: bool) -> None:
    """Log in to this node, or with --node to another one."""
    if not password_stdin and not prompts.interactive():
        node = f" --node {settings.node}" if settings.node else ""
        raise HiveError(
            Kind.LOGIN_REQUIRED,
            "logging in failed",
            "there is no terminal to ask for the password on",
            f"Pipe it: hivectl login{node} --user {user or DEFAULT_USER} --password-stdin",
        )
    session = settings.session()
    peer = session.peer_id()
    if not yes:
        session.confirm()
    if password_stdin:
        user = user or DEFAULT_USER
        password = passwords.from_stdin()
    else:
        node = session.describe()
        user = user or prompts.ask(f"User on {node}", DEFAULT_USER)
        password = prompts.password(f"Password of {user} on {node}")
    answer = session.login(user, password)
    if settings.json:
        # Not the answer itself: the token in it is a secret, and is kept already.
        output.value({"peer_id": peer, "user": answer.user, "expires": answer.expires})
    else:
        output.say(f"Logged in to {peer} as {answer.user} until {answer.expires}.")


@click.command(cls=Command)
@click.pass_obj
def logout(settings: Settings) -> None:
    """Log out of this node, or with --node of another one."""
    session = settings.session()
    peer = session.peer_id()
    if not session.has_token():
        raise HiveError(Kind.LOGIN_REQUIRED, "logging out failed", f"you are not logged in to {peer}")
    answer = session.logout()
    report.reply(settings, answer, lambda done: _ended(done, peer))


def _ended(done: Done, peer: str) -> None:
    output.say(f"Logged out of {peer}.")
    output.note(done.note)
