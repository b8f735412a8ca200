"""The network changes under a running node: paths are found again, and nothing is typed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from tests.integration.nodes import Node, proxy
from tests.netns.host import LanHost, PublicHost
from tests.netns.lab import Lab
from tests.netns.meshes import await_path, mesh
from tests.netns.test_hived import fetch, web

pytestmark = pytest.mark.requires("natlab")

FOUND_AGAIN = 15
SECONDS = 60


@contextlib.contextmanager
def service(lab: Lab) -> Iterator[tuple[LanHost, PublicHost, Node, Node, Callable[[float], float]]]:
    """A page beside a node at home, forwarded by one outside; and how long until it is answered again."""
    pub1, pub2 = lab.public("pub1"), lab.public("pub2")
    home = lab.lan("home", "prc").host("home-host")
    p, _, a = mesh(lab, pub1, pub2, home, first=2)
    await_path(p, a, SECONDS, "direct")
    with web(home) as port:
        door = proxy(p, a, port)

        def answers(seconds: float) -> float:
            began = time.monotonic()
            while True:
                with contextlib.suppress(OSError):
                    assert fetch(pub1, f"http://127.0.0.1:{door}/page", 3) == "you asked for /page"
                    return time.monotonic() - began
                assert time.monotonic() - began < seconds, f"{p.ctl('proxy').out}\n{a.tail()}"
                time.sleep(0.2)

        answers(SECONDS)
        yield home, pub1, p, a, answers


def test_another_address(lab: Lab) -> None:
    with service(lab) as (home, _, p, a, answers):
        home.readdress()
        answers(FOUND_AGAIN)
        # Members learn it.
        p.await_row(a, lambda row: any(home.address in address for address in row["addresses"]), FOUND_AGAIN)


def test_another_gateway(lab: Lab) -> None:
    with service(lab) as (home, _, _, _, answers):
        home.use(home.lan.add_router("sym"))
        answers(FOUND_AGAIN)


def test_the_default_route_goes_and_comes_back(lab: Lab) -> None:
    with service(lab) as (home, _, p, a, answers):
        home.drop_default()
        await_path(p, a, 30, "none")
        home.restore_default()
        answers(FOUND_AGAIN)


@pytest.mark.full
@pytest.mark.timeout(240)
def test_asleep_for_a_minute_and_awake_elsewhere(lab: Lab) -> None:
    with service(lab) as (home, _, _, a, answers):
        with a.frozen():
            home.readdress()
            time.sleep(60)
        answers(FOUND_AGAIN)
        assert [line for line in a.log.lines if "awake again" in line]


@pytest.mark.timeout(240)
def test_two_behind_nats_find_each_other_again(lab: Lab) -> None:
    """Over the direct path: a router's other address, of which no event tells, on either side; no route."""
    pub1, pub2 = lab.public("pub1"), lab.public("pub2")
    near, far = lab.lan("home", "prc").host("near"), lab.lan("office", "prc").host("far")
    _, _, a, b = mesh(lab, pub1, pub2, near, far, first=2)
    with web(near) as here, web(far) as there:
        doors = ((near, proxy(a, b, there)), (far, proxy(b, a, here)))

        def change(what: Callable[[], object]) -> None:
            await_path(a, b, SECONDS, "direct")
            await_path(b, a, SECONDS, "direct")
            what()
            began = time.monotonic()
            for host, door in doors:
                while True:
                    with contextlib.suppress(OSError):
                        assert fetch(host, f"http://127.0.0.1:{door}/page", 3) == "you asked for /page"
                        break
                    passed = time.monotonic() - began
                    assert passed < FOUND_AGAIN, f"{host.name}: {a.ctl('nodes').out}\n{b.ctl('nodes').out}"
                    time.sleep(0.2)

        change(near.router.readdress)
        change(far.router.readdress)
        change(near.readdress)

        def away() -> None:
            near.drop_default()
            a.await_row(b, lambda row: row["path"] == "none", SECONDS)
            near.restore_default()

        change(away)
        await_path(a, b, SECONDS, "direct")
        await_path(b, a, SECONDS, "direct")
