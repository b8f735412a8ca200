"""``hivectl networks``: the networks that this node is in."""

from __future__ import annotations

from functools import partial

import click

from hivectl import output, passwords, prompts, report
from hivectl.options import Command, Noun, Settings
from hivectl.output import Table
from hivectl.parameters import DURATION, NAME, NETWORK
from hivectl.session import path
from hivectl.usage import wrong
from hived.errors import several, usage
from hived.schema import MAX_GRACE, CreateNetwork, NetworkCreated, NetworkRekeyed, NetworkRow, RekeyNetwork


@click.command("ls", cls=Command)
@click.pass_obj
def ls(settings: Settings) -> None:
    """List this node's networks."""
    report.fetch(settings, "/v1/networks", list[NetworkRow], lambda rows: output.show(table(rows)))


networks = Noun("networks", help="The networks that this node is in; alone: list them.", listing=ls)


def table(rows: list[NetworkRow]) -> Table:
    """The networks as a table."""
    return Table(
        ("network", "members", "connected", "created", "rekey"),
        [
            (row.name, str(row.members), str(row.connected), output.when(row.created), _rekey(row))
            for row in rows
        ],
        "This node is in no network. Type: hivectl networks create NAME, or: hivectl networks join NAME",
    )


def _rekey(row: NetworkRow) -> str:
    if row.rekey_until is None:
        return "-"
    waiting = f"not moved: {several(row.not_moved, 10)}" if row.not_moved else "all moved"
    return f"until {output.when(row.rekey_until)}, {waiting}"


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
    secret = passwords.given(password, password_stdin, password_file) or _ask(
        f"joining {name} failed", f"Password of network {name}", f"hivectl networks join {name}"
    )
    body = CreateNetwork(name=name, password=secret)

    def human(network: NetworkCreated) -> None:
        output.say(f"This node is in network {network.name}.")
        output.warn(network.warning)
        output.note(
            f"To meet another node, type: hivectl register ID --network {name}"
            " (its ID: hivectl id --base64 there)"
        )

    report.reply(settings, settings.session().call("POST", "/v1/networks", NetworkCreated, body), human)


def _ask(what: str, prompt: str, command: str) -> str:
    """A password from the terminal; a usage error where there is none."""
    if not prompts.interactive():
        raise usage(
            what,
            "there is no terminal to ask for its password on",
            f"Pipe it with --password-stdin, or type: {command} --password-file F",
        )
    return prompts.password(prompt)


@networks.command()
@click.argument("name", type=NETWORK)
@click.option("--join", "take", is_flag=True, help="Take the password that another member has made.")
@click.option("--grace", type=DURATION, help="How long the former password counts too (7d; 90d at most).")
@click.option("--now", is_flag=True, help="It counts no more at once; alone, end a grace time.")
@click.option("--cancel", is_flag=True, help="Within the grace time: go back to the former password.")
@passwords.options
@click.pass_obj
def rekey(
    settings: Settings,
    name: str,
    take: bool,
    grace: float | None,
    now: bool,
    cancel: bool,
    password: str | None,
    password_stdin: bool,
    password_file: str | None,
) -> None:
    """Give a network a new password, to shut out whoever only has the former one.

    Run it on one member: it makes a password and prints it. Then on every other with --join.
    For a grace time both count, so that nothing is cut while you go round;
    hivectl networks lists who has not moved. Whoever has not when it ends is out,
    and comes back with --join. --now on each ends the grace time before.
    """
    _check_rekey(take, grace, now, cancel)
    secret = passwords.given(password, password_stdin, password_file)
    if take and secret is None:
        secret = _ask(
            f"rekeying {name} failed",
            f"New password of network {name}",
            f"hivectl networks rekey {name} --join",
        )
    if now and prompts.interactive():
        output.note(f"Nodes without the new password of {name} are cut off at once, until they have it.")
        if not prompts.confirm("Go on?"):
            raise usage(f"rekeying {name} failed", "you did not say yes", "Leave --now away for a grace time")
    body = RekeyNetwork(password=secret, grace=grace, now=now, cancel=cancel, join=take)
    answer = settings.session().call("POST", path("networks", name, "rekey"), NetworkRekeyed, body)
    report.reply(settings, answer, partial(_rekeyed, take))


def _check_rekey(take: bool, grace: float | None, now: bool, cancel: bool) -> None:
    given = {"--join": take, "--grace": grace is not None, "--now": now}
    if now and grace is not None:
        raise wrong("--now and --grace exclude each other", "Give one of them")
    for other in (flag for flag, is_given in given.items() if is_given and cancel):
        raise wrong(f"--cancel and {other} exclude each other", "Give one of them")
    if grace is not None and grace > MAX_GRACE:
        raise wrong("--grace is 90d at most", "Give a shorter time")


def _rekeyed(take: bool, network: NetworkRekeyed) -> None:
    name = network.name
    if network.cancelled:
        output.say(f"The former password of {name} counts alone again, on this node.")
        if network.moved:
            output.note(f"These have taken the new one: {several(network.moved, 10)}")
            output.note(f"On each of them, type: hivectl networks rekey {name} --cancel")
        return
    if network.until is None:
        output.say(f"The former password of {name} counts no more.")
    else:
        output.say(f"Network {name} has a new password; the former one counts until {network.until}.")
    if network.password:
        output.say(f"Its password: {network.password}")
        output.note("Keep it: it is not shown again.")
    output.warn(network.warning)
    if network.moved:
        output.note(f"These have it too: {several(network.moved, 10)}")
    elif take:
        output.note(
            f"Nobody could be asked whether it is right; hivectl networks shows who has it. To end {name}'s"
            " former password here too: --now."
        )
    if network.not_moved:
        lead = "Out until they have it" if network.until is None else "Not moved yet"
        output.note(f"{lead}: {several(network.not_moved, 10)}")
        output.note(f"On each of them, type: hivectl networks rekey {name} --join")


@networks.command()
@click.argument("name", type=NETWORK)
@click.pass_obj
def leave(settings: Settings, name: str) -> None:
    """Leave a network; its proxies on this node end."""
    report.change(settings, "DELETE", path("networks", name), f"This node left network {name}.")
