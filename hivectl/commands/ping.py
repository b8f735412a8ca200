"""``hivectl ping``: round trips through the overlay."""

from __future__ import annotations

import statistics
import sys
import time

import click

from hivectl import output
from hivectl.options import Command, Settings
from hivectl.parameters import NODE
from hivectl.session import path
from hived.errors import HiveError, Kind
from hived.schema import Ping


@click.command(cls=Command)
@click.argument("node", type=NODE)
@click.option(
    "-c", "--count", type=click.IntRange(1), metavar="N", help="So many, then end. Default: until Ctrl-C."
)
@click.option(
    "-i",
    "--interval",
    type=click.FloatRange(0.1),
    default=1.0,
    metavar="SECONDS",
    help="Between two. Default: 1.",
)
@click.pass_obj
def ping(settings: Settings, node: str, count: int | None, interval: float) -> None:
    """Measure the round trip to NODE by the path that connections take now, and say when that changes.

    Ends with 7 when the last one had no answer.
    """
    session = settings.session()
    times: list[float] = []
    last, sent = "", 0
    failure: HiveError | None = None
    try:
        while count is None or sent < count:
            if sent:
                time.sleep(interval)
            sent += 1
            try:
                reply = session.call("POST", path("nodes", node, "ping"), Ping)
            except HiveError as error:
                if error.kind is not Kind.UNREACHABLE or (count == 1 and sent == 1):
                    raise
                failure = error
                output.note(f"hivectl: {sent}: {error.line()}")
                continue
            failure = None
            times.append(reply.value.rtt_ms)
            if settings.json:
                output.record(reply.raw)
                continue
            way: str = reply.value.path
            if reply.value.relay:
                way += f" via {reply.value.relay_name or reply.value.relay}"
            changed = f"  (was {last})" if last and last != way else ""
            last = way
            output.say(
                f"{reply.value.name or reply.value.peer_id}: {reply.value.rtt_ms:.2f} ms, {way}{changed}"
            )
    except KeyboardInterrupt:
        if not times and failure is None:
            raise
    if not settings.json:
        figures = (
            f"; least {min(times):.2f}, median {statistics.median(times):.2f}, most {max(times):.2f} ms"
            if times
            else ""
        )
        output.note(f"{len(times)} of {sent} answered{figures}")
    if failure is not None:
        sys.exit(failure.kind.exit_code)
