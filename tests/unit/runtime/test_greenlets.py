"""Greenlets are reused for successive tasks."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import get_hub
from gevent.event import Event

from pomagent.runtime.greenlets import MAX_IDLE, GreenletReuse, Task


@pytest.fixture
def greenlets() -> Iterator[GreenletReuse]:
    greenlets = GreenletReuse()
    yield greenlets
    greenlets.close()


@pytest.fixture
def crashes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, type[BaseException]]]:
    reported: list[tuple[Any, type[BaseException]]] = []
    monkeypatch.setattr(get_hub(), "handle_error", lambda context, kind, *_: reported.append((context, kind)))
    return reported


def done(task: Task) -> object:
    assert task.join(10)
    return task.value


def waiting(greenlets: GreenletReuse) -> tuple[Task, Event]:
    """Return a task that has started and waits, and the event that ends it."""
    until = Event()
    task = greenlets.begin(until.wait, "waits")
    gevent.sleep(0)
    return task, until


class TestTask:
    def test_runs_when_the_current_greenlet_waits_and_keeps_its_result(self, greenlets: GreenletReuse) -> None:
        task = greenlets.begin(lambda: 42, "sum")
        assert not task.is_over
        assert done(task) == 42
        assert (task.is_over, task.has_crashed) == (True, False)

    def test_runs_in_an_idle_greenlet_if_there_is_one(self, greenlets: GreenletReuse) -> None:
        first, second = (
            done(greenlets.begin(gevent.getcurrent, "first")),
            done(greenlets.begin(gevent.getcurrent, "second")),
        )
        assert first is second

    def test_does_not_wait_for_another(self, greenlets: GreenletReuse) -> None:
        task, until = waiting(greenlets)
        assert done(greenlets.begin(lambda: "meanwhile", "other")) == "meanwhile"
        until.set()
        assert done(task) is True

    def test_lends_the_greenlet_its_name(self, greenlets: GreenletReuse) -> None:
        for name in ("session 1", "session 2"):
            assert done(greenlets.begin(lambda: gevent.getcurrent().name, name)) == name

    def test_on_end_is_called_before_join_returns(self, greenlets: GreenletReuse) -> None:
        ended: list[Task] = []
        task = greenlets.begin(lambda: None, "short", ended.append)
        done(task)
        assert ended == [task]

    def test_is_freed_while_its_greenlet_is_idle(self, greenlets: GreenletReuse) -> None:
        class Load:
            def run(self) -> None: ...

        load = Load()
        gone = weakref.ref(load)
        done(greenlets.begin(load.run, "load"))
        del load
        gc.collect()
        assert gone() is None

    def test_join_returns_after_its_timeout(self, greenlets: GreenletReuse) -> None:
        task, _ = waiting(greenlets)
        assert not task.join(0.001)
        task.kill()


class TestCrash:
    def test_is_reported_to_the_hub_with_the_name_of_the_task(
        self, greenlets: GreenletReuse, crashes: list[tuple[Any, type[BaseException]]]
    ) -> None:
        task = greenlets.begin(lambda: 1 // 0, "division")
        done(task)
        assert task.has_crashed
        assert [(context.name, kind) for context, kind in crashes] == [("division", ZeroDivisionError)]

    def test_costs_no_greenlet(self, greenlets: GreenletReuse, crashes: list[tuple[Any, type[BaseException]]]) -> None:
        def crash() -> None:
            crashed.append(gevent.getcurrent())
            raise ZeroDivisionError

        crashed: list[Any] = []
        done(greenlets.begin(crash, "division"))
        assert done(greenlets.begin(gevent.getcurrent, "next")) is crashed[0]


class TestKill:
    def test_ends_a_waiting_task(self, greenlets: GreenletReuse, crashes: list[Any]) -> None:
        task, _ = waiting(greenlets)
        task.kill()
        assert done(task) is None
        assert (task.has_crashed, crashes) == (False, [])

    def test_before_the_start_prevents_it(self, greenlets: GreenletReuse) -> None:
        ran: list[bool] = []
        ended: list[Task] = []
        task = greenlets.begin(lambda: ran.append(True), "never", ended.append)
        task.kill()
        done(task)
        assert (ran, ended) == ([], [task])

    def test_after_the_end_has_no_effect(self, greenlets: GreenletReuse) -> None:
        task, until = waiting(greenlets)
        until.set()  # the task will end in the same iteration of the loop
        after: list[Task] = []
        get_hub().loop.run_callback(
            lambda: after.append(greenlets.begin(lambda: gevent.sleep(0.01) or "whole", "next"))
        )
        get_hub().loop.run_callback(task.kill)
        done(task)
        assert done(after[0]) == "whole"

    @pytest.mark.parametrize("times", [1, 2])
    def test_does_not_affect_the_next_task_of_the_greenlet(self, greenlets: GreenletReuse, times: int) -> None:
        task, _ = waiting(greenlets)
        for _ in range(times):
            task.kill()
        done(task)
        assert done(greenlets.begin(lambda: gevent.sleep(0.001) or "whole", "next")) == "whole"


class TestReuse:
    def test_keeps_a_limited_number_of_idle_greenlets(self, greenlets: GreenletReuse) -> None:
        tasks = [waiting(greenlets) for _ in range(MAX_IDLE + 5)]
        used = [task._greenlet for task, _ in tasks]
        for _, until in tasks:
            until.set()
        gevent.joinall(used, timeout=0.1)
        assert sum(not greenlet.ready() for greenlet in used) == MAX_IDLE  # type: ignore[union-attr]

    def test_runs_tasks_that_begin_while_it_closes(self, greenlets: GreenletReuse) -> None:
        done(greenlets.begin(lambda: None, "so that one is at rest"))
        late: list[Task] = []
        get_hub().loop.run_callback(lambda: late.append(greenlets.begin(lambda: "done", "late")))
        greenlets.close()
        assert done(late[0]) == "done"

    @pytest.mark.parametrize("finish", [Task.kill, lambda _: None])
    def test_once_closed_ends_each_greenlet_with_its_work(self, finish: Callable[[Task], None]) -> None:
        greenlets = GreenletReuse()
        idle = done(greenlets.begin(gevent.getcurrent, "done"))
        task, until = waiting(greenlets)
        busy = task._greenlet
        greenlets.close()
        assert busy is idle or idle.ready()  # type: ignore[attr-defined]
        assert not task.is_over
        finish(task)
        until.set()
        busy.join(10)  # type: ignore[union-attr]
        assert busy.ready()  # type: ignore[union-attr]
