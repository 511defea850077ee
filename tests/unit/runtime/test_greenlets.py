"""Greenlets that go from one piece of work to the next."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import get_hub
from gevent.event import Event

from pomagent.runtime.greenlets import MOST_AT_REST, GreenletReuse, Task


@pytest.fixture
def crew() -> Iterator[GreenletReuse]:
    crew = GreenletReuse()
    yield crew
    crew.close()


@pytest.fixture
def crashes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, type[BaseException]]]:
    told: list[tuple[Any, type[BaseException]]] = []
    monkeypatch.setattr(get_hub(), "handle_error", lambda context, kind, *_: told.append((context, kind)))
    return told


def done(task: Task) -> object:
    assert task.join(10)
    return task.value


def waiting(crew: GreenletReuse) -> tuple[Task, Event]:
    """Work that has begun and waits."""
    until = Event()
    task = crew.begin(until.wait, "waits")
    gevent.sleep(0)
    return task, until


class TestWork:
    def test_is_done_once_somebody_waits_and_its_outcome_is_kept(self, crew: GreenletReuse) -> None:
        task = crew.begin(lambda: 42, "sum")
        assert not task.is_over
        assert done(task) == 42
        assert (task.is_over, task.has_crashed) == (True, False)

    def test_goes_to_a_greenlet_that_has_done_its_last(self, crew: GreenletReuse) -> None:
        first, second = done(crew.begin(gevent.getcurrent, "first")), done(crew.begin(gevent.getcurrent, "second"))
        assert first is second

    def test_does_not_wait_for_another(self, crew: GreenletReuse) -> None:
        task, until = waiting(crew)
        assert done(crew.begin(lambda: "meanwhile", "other")) == "meanwhile"
        until.set()
        assert done(task) is True

    def test_lends_the_greenlet_its_name(self, crew: GreenletReuse) -> None:
        for name in ("session 1", "session 2"):
            assert done(crew.begin(lambda: gevent.getcurrent().name, name)) == name

    def test_tells_of_its_end_before_whoever_joins_goes_on(self, crew: GreenletReuse) -> None:
        ended: list[Task] = []
        task = crew.begin(lambda: None, "short", ended.append)
        done(task)
        assert ended == [task]

    def test_is_not_kept_by_a_greenlet_at_rest(self, crew: GreenletReuse) -> None:
        class Load:
            def run(self) -> None: ...

        load = Load()
        gone = weakref.ref(load)
        done(crew.begin(load.run, "load"))
        del load
        gc.collect()
        assert gone() is None

    def test_joined_for_a_while_only(self, crew: GreenletReuse) -> None:
        task, _ = waiting(crew)
        assert not task.join(0.001)
        task.kill()


class TestCrash:
    def test_is_told_to_the_hub_by_the_name_of_the_work(
        self, crew: GreenletReuse, crashes: list[tuple[Any, type[BaseException]]]
    ) -> None:
        task = crew.begin(lambda: 1 // 0, "division")
        done(task)
        assert task.has_crashed
        assert [(context.name, kind) for context, kind in crashes] == [("division", ZeroDivisionError)]

    def test_costs_no_greenlet(self, crew: GreenletReuse, crashes: list[tuple[Any, type[BaseException]]]) -> None:
        def crash() -> None:
            greenlets.append(gevent.getcurrent())
            raise ZeroDivisionError

        greenlets: list[Any] = []
        done(crew.begin(crash, "division"))
        assert done(crew.begin(gevent.getcurrent, "next")) is greenlets[0]


class TestKill:
    def test_ends_what_waits(self, crew: GreenletReuse, crashes: list[Any]) -> None:
        task, _ = waiting(crew)
        task.kill()
        assert done(task) is None
        assert (task.has_crashed, crashes) == (False, [])

    def test_of_what_has_not_begun_leaves_it_undone(self, crew: GreenletReuse) -> None:
        ran: list[bool] = []
        ended: list[Task] = []
        task = crew.begin(lambda: ran.append(True), "never", ended.append)
        task.kill()
        done(task)
        assert (ran, ended) == ([], [task])

    def test_that_comes_too_late_hits_nobody_else(self, crew: GreenletReuse) -> None:
        task, until = waiting(crew)
        until.set()  # it will end in the same turn of the loop
        after: list[Task] = []
        get_hub().loop.run_callback(lambda: after.append(crew.begin(lambda: gevent.sleep(0.01) or "whole", "next")))
        get_hub().loop.run_callback(task.kill)
        done(task)
        assert done(after[0]) == "whole"

    @pytest.mark.parametrize("times", [1, 2])
    def test_hits_the_next_work_of_the_same_greenlet_never(self, crew: GreenletReuse, times: int) -> None:
        task, _ = waiting(crew)
        for _ in range(times):
            task.kill()
        done(task)
        assert done(crew.begin(lambda: gevent.sleep(0.001) or "whole", "next")) == "whole"


class TestCrew:
    def test_keeps_so_many_and_no_more(self, crew: GreenletReuse) -> None:
        tasks = [waiting(crew) for _ in range(MOST_AT_REST + 5)]
        greenlets = [task._greenlet for task, _ in tasks]
        for _, until in tasks:
            until.set()
        gevent.joinall(greenlets, timeout=0.1)
        assert sum(not greenlet.ready() for greenlet in greenlets) == MOST_AT_REST  # type: ignore[union-attr]

    def test_does_work_that_is_begun_while_it_closes(self, crew: GreenletReuse) -> None:
        done(crew.begin(lambda: None, "so that one is at rest"))
        late: list[Task] = []
        get_hub().loop.run_callback(lambda: late.append(crew.begin(lambda: "done", "late")))
        crew.close()
        assert done(late[0]) == "done"

    @pytest.mark.parametrize("finish", [Task.kill, lambda _: None])
    def test_once_closed_ends_each_greenlet_with_its_work(self, finish: Callable[[Task], None]) -> None:
        crew = GreenletReuse()
        idle = done(crew.begin(gevent.getcurrent, "done"))
        task, until = waiting(crew)
        busy = task._greenlet
        crew.close()
        assert busy is idle or idle.ready()  # type: ignore[attr-defined]
        assert not task.is_over
        finish(task)
        until.set()
        busy.join(10)  # type: ignore[union-attr]
        assert busy.ready()  # type: ignore[union-attr]
