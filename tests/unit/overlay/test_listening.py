"""Where a node listens: as named; else the default port, which gives way once and for good."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from trio.testing import trio_test

from hived import config
from hived.errors import HiveError, Kind
from hived.overlay import addresses
from hived.overlay.listening import Listening
from hived.store.settings import Settings
from tests.unit.overlay.parties import LOOPBACK, party
from tests.unit.store.stores import opened

DEFAULT = config.load({"data_dir": "/none", "name": "x"}, {"HOME": "/none"}, root=False)
NAMED = replace(DEFAULT, listen=(LOOPBACK,), listen_named=True, announce=("/dns/box.example/tcp/1",))


@trio_test
async def test_as_named(tmp_path: Path) -> None:
    async with opened(tmp_path) as database, party("a") as alice:
        listening = Listening(alice.host, Settings(database))
        await listening.apply(NAMED)
        assert listening.addresses() == ["/dns/box.example/tcp/1", *alice.host.listening]


@pytest.mark.parametrize("key", ["listen", "announce"])
def test_what_is_malformed_changes_nothing(tmp_path: Path, key: str) -> None:
    @trio_test
    async def main() -> None:
        async with opened(tmp_path) as database, party("a") as alice:
            listening, before = Listening(alice.host, Settings(database)), alice.host.listening
            with pytest.raises(HiveError) as caught:
                await listening.apply(replace(NAMED, **{key: ("nonsense",)}))  # type: ignore[arg-type]
            assert caught.value.kind is Kind.USAGE
            assert alice.host.listening == before

    main()


@trio_test
async def test_a_taken_default_port_gives_way_once_and_the_choice_is_kept(tmp_path: Path) -> None:
    taken = socket.socket()
    with contextlib.closing(taken):
        with contextlib.suppress(OSError):  # somebody else has it: taken all the same
            taken.bind(("127.0.0.1", config.DEFAULT_PORT))
            taken.listen()
        async with opened(tmp_path) as database, party("a") as alice:
            await Listening(alice.host, Settings(database)).apply(DEFAULT)
            ports = {addresses.parse(text).port for text in alice.host.listening}
    (port,) = ports
    assert port != config.DEFAULT_PORT
    async with opened(tmp_path) as database, party("a") as alice:
        await Listening(alice.host, Settings(database)).apply(DEFAULT)
        assert {addresses.parse(text).port for text in alice.host.listening} == {port}
        with socket.create_server(("127.0.0.1", 0)) as other:
            # A port that was chosen and is taken now is a conflict: others know that one.
            await Settings(database).set("listen_port", str(other.getsockname()[1]))
            with pytest.raises(HiveError) as caught:
                await Listening(alice.host, Settings(database)).apply(DEFAULT)
            assert caught.value.kind is Kind.CONFLICT
