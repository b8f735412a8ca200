"""The data plane's thread: order, timers, edges, defects and its end."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import weakref

import pytest
import trio
import trio.lowlevel

from hived.transport import planethread
from hived.transport.plane import IN, OUT, Plane
from tests.unit.transport.pairs import (
    on_plane,
    plane,
    settle,
    sockets,
    trio_test,
)


@trio_test
async def test_calls_come_in_order_on_the_planes_thread() -> None:
    async with plane() as running:
        got: list[int] = []
        threads: set[int] = set()

        def there(number: int) -> None:
            got.append(number)
            threads.add(threading.get_ident())

        for number in range(10_000):
            running.call(there, number)
        await on_plane(running, lambda: None)
        assert got == list(range(10_000))
        assert len(threads) == 1
        assert threading.get_ident() not in threads


@trio_test
async def test_calls_of_several_threads_all_come_each_threads_in_order() -> None:
    async with plane() as running:
        got: list[tuple[int, int]] = []

        def caller(name: int) -> None:
            for number in range(5_000):
                running.call(got.append, (name, number))

        threads = [threading.Thread(target=caller, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await trio.to_thread.run_sync(thread.join)
        await on_plane(running, lambda: None)
        for name in range(4):
            assert [number for who, number in got if who == name] == list(range(5_000))


@trio_test
async def test_what_is_told_comes_in_order_on_trios_thread() -> None:
    async with plane() as running:
        got: list[int] = []
        threads: set[int] = set()

        def here(number: int) -> None:
            got.append(number)
            threads.add(threading.get_ident())

        def there() -> None:
            for number in range(10_000):
                running.tell(here, number)

        running.call(there)
        await on_plane(running, lambda: None)
        assert got == list(range(10_000))
        assert threads == {threading.get_ident()}


@trio_test
async def test_an_idle_loop_sleeps() -> None:
    async with plane() as running:
        await settle()
        # The thread may still be on its way to where it sleeps.
        await trio.sleep(0.2)
        turns = running.turns
        await trio.sleep(0.3)
        assert running.turns == turns
        # The pass that was asleep was counted when it began.
        woken = trio.Event()
        running.call(lambda: running.soon(lambda: running.tell(woken.set)))
        await woken.wait()
        assert running.turns > turns


@trio_test
async def test_soon_is_in_the_next_pass() -> None:
    """So that what calls itself again and again leaves the others their turn."""
    async with plane() as running:
        turns: list[int] = []

        def again() -> None:
            turns.append(running.turns)
            if len(turns) < 3:
                running.soon(again)

        running.call(again)
        await settle()
        assert turns == [turns[0], turns[0] + 1, turns[0] + 2]


# Timers


@trio_test
async def test_timers_fire_in_their_order_and_not_too_early() -> None:
    async with plane() as running:
        fired: list[str] = []
        done = trio.Event()
        before = trio.current_time()

        def begin() -> None:
            running.after(0.10, lambda: fired.append("second"))
            running.after(0.15, lambda: running.tell(done.set))
            running.after(0.05, lambda: fired.append("first"))
            running.after(0.05, lambda: fired.append("first, later made"))
            running.after(0.0, lambda: fired.append("at once"))

        running.call(begin)
        await done.wait()
        assert trio.current_time() - before >= 0.15
        assert fired == ["at once", "first", "first, later made", "second"]


@trio_test
async def test_a_cancelled_timer_does_not_fire() -> None:
    async with plane() as running:
        fired: list[str] = []
        done = trio.Event()

        def begin() -> None:
            timer = running.after(0.01, lambda: fired.append("cancelled"))
            timer.cancel()
            timer.cancel()
            running.after(0.05, lambda: running.tell(done.set))

        running.call(begin)
        await done.wait()
        assert fired == []


@trio_test
async def test_cancelled_timers_keep_nothing_alive() -> None:
    """Each connection of a proxy has one of ten seconds: thousands a second must not pile up."""

    class Large:
        def method(self) -> None: ...

    async with plane() as running:
        freed = trio.Event()

        def begin() -> None:
            large = Large()
            weakref.finalize(large, running.tell, freed.set)
            running.after(3600, large.method).cancel()

        running.call(begin)
        with trio.fail_after(5):
            await freed.wait()


@trio_test
async def test_cancelled_timers_do_not_pile_up() -> None:
    """Even those of an hour; and one that lives among them keeps its time."""
    async with plane() as running:
        rang = trio.Event()

        def many() -> None:
            running.after(0.05, lambda: running.tell(rang.set))
            for _ in range(50_000):
                running.after(3600, rang.set).cancel()

        running.call(many)
        with trio.fail_after(20):
            await rang.wait()
        assert len(running._timers) < 5000


# Sockets


@trio_test
async def test_edges() -> None:
    """The state at first, then each change once."""
    async with plane() as running:
        one, other = sockets()
        seen: list[int] = []
        await on_plane(running, lambda: running.watch(one, seen.append))
        await settle()
        assert seen == [OUT]
        other.send(b"x")
        await settle()
        assert [bool(events & IN) for events in seen] == [False, True]
        await settle()
        assert len(seen) == 2, "said once although nobody has read"
        await on_plane(running, lambda: running.unwatch(one))
        await on_plane(running, lambda: running.unwatch(one))
        other.send(b"x")
        await settle()
        assert len(seen) == 2
        one.close()
        other.close()


@trio_test
async def test_events_of_a_closed_socket_do_not_reach_the_next_one_of_its_number() -> None:
    """Both come in one batch: a handler closes the second, and a new one gets its number."""
    async with plane() as running:
        first, wakes_first = sockets()
        second, wakes_second = sockets()
        new, new_other = sockets()
        number = second.fileno()
        made: list[socket.socket] = []
        seen: list[int] = []

        def on_first(events: int) -> None:
            if events & IN and not made:
                running.unwatch(second)
                second.close()
                os.dup2(new.fileno(), number)
                made.append(socket.socket(fileno=number))
                running.watch(made[0], seen.append)

        def begin() -> None:
            running.watch(first, on_first)
            running.watch(second, lambda events: None)

        await on_plane(running, begin)
        await settle()

        def both() -> None:
            wakes_first.send(b"x")
            wakes_second.send(b"x")

        running.call(both)
        await settle()
        assert made
        assert seen == [OUT], "nothing has come on the new one"
        for sock in (first, wakes_first, wakes_second, new, new_other, *made):
            sock.close()


# Defects and the end


@trio_test
async def test_a_defect_in_one_handler_does_not_end_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    async with plane() as running:
        one, other = sockets()
        crashed: list[str] = []

        class Defective:
            def event(self, events: int) -> None:
                raise RuntimeError("a defect in an event")

            def call(self) -> None:
                raise RuntimeError("a defect in a call")

            def crashed(self) -> None:
                crashed.append("told")

        defective = Defective()

        def fails() -> None:
            raise RuntimeError("a defect in a timer, or on trio's side")

        def begin() -> None:
            running.watch(one, defective.event)
            running.after(0.0, fails)
            running.tell(fails)

        running.call(defective.call)
        running.call(begin)
        await settle()
        assert crashed == ["told", "told"]
        assert await on_plane(running, lambda: "alive") == "alive"
        one.close()
        other.close()


@trio_test
async def test_the_thread_ends_with_the_block_and_frees_its_files() -> None:
    before = set(os.listdir("/proc/self/fd"))
    made = Plane()
    async with planethread.running(made):
        assert "hive-plane" in [thread.name for thread in threading.enumerate()]
    assert "hive-plane" not in [thread.name for thread in threading.enumerate()]
    assert set(os.listdir("/proc/self/fd")) <= before


@trio_test
async def test_it_runs_for_those_who_clean_up_when_all_is_cancelled() -> None:
    made = Plane()
    done: list[str] = []
    with trio.CancelScope() as scope:
        async with planethread.running(made):
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                done.append(await on_plane(made, lambda: "cleaned up"))
    assert done == ["cleaned up"]


@trio_test
async def test_what_was_called_and_told_before_the_end_is_done() -> None:
    made = Plane()
    done: list[str] = []
    async with planethread.running(made):
        made.call(lambda: made.tell(done.append, "told"))
    assert done == ["told"]


@trio_test
async def test_what_the_loop_dies_of_ends_the_block() -> None:
    made = Plane()

    def dies() -> None:
        raise KeyboardInterrupt

    with pytest.raises(BaseException) as caught:
        async with planethread.running(made):
            made.call(dies)
            await trio.sleep_forever()
    found: BaseException = caught.value
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, KeyboardInterrupt)


@trio_test
async def test_a_call_behind_the_end_touches_nobodys_file() -> None:
    made = Plane()
    async with planethread.running(made):
        number = made._wake
    # Out of the way of the number, which one of the two may have got.
    one, other = (
        socket.socket(fileno=fcntl.fcntl(sock.detach(), fcntl.F_DUPFD, number + 100)) for sock in sockets()
    )
    os.dup2(one.fileno(), number)
    made.call(lambda: None)
    other.setblocking(False)
    with pytest.raises(BlockingIOError):
        other.recv(8)
    os.close(number)
    one.close()
    other.close()


@trio_test
async def test_a_flood_of_what_is_told_leaves_trio_its_turn() -> None:
    """Trio's tasks go on although the data plane always has more to tell."""
    async with plane() as running:
        stop, begun = threading.Event(), trio.Event()
        net = threading.Timer(5.0, stop.set)
        net.start()
        told: list[int] = []

        def flood() -> None:
            running.tell(begun.set)
            for _ in range(200):
                running.tell(_work, told)
            if not stop.is_set():
                running.soon(flood)

        running.call(flood)
        await begun.wait()
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        starved = stop.is_set()
        stop.set()
        net.cancel()
        assert not starved
        await settle()
        assert told


def _work(told: list[int]) -> None:
    """As much as it takes to make an object or two."""
    told[:] = [sum(range(500))]
