"""Reuses greenlets for successive tasks: a new greenlet, with its stack, costs ten times as much."""

from __future__ import annotations

import sys
from collections.abc import Callable

import gevent
from gevent import get_hub
from gevent.event import Event
from gevent.hub import Waiter

MAX_IDLE = 32
"""Maximum idle greenlets, of about 20 KB each. Bursts beyond it start new greenlets."""


class Task:
    """One function call in a reused greenlet. Its creator can join and kill it like a greenlet."""

    def __init__(self, run: Callable[[], object], name: str, on_end: Callable[[Task], None]) -> None:
        self._run: Callable[[], object] | None = run
        self._on_end = on_end
        self._greenlet: gevent.Greenlet | None = None
        """The greenlet that runs the task now."""
        self._waiting: Event | None = None
        self._is_killed = False
        self.name = name
        self.is_over = False
        self.has_crashed = False
        """Whether the task ended with an unexpected exception, which was reported to the hub."""
        self.value: object = None
        """Return value of the task if it succeeded."""

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the task has ended, or return False after the timeout. Blocks."""
        if self.is_over:
            return True
        self._waiting = self._waiting or Event()
        return bool(self._waiting.wait(timeout_s))

    def kill(self) -> None:
        """End the task where it waits, or prevent its start. Does not block.

        A later task of the same greenlet is never affected.
        """
        if not self._is_killed and not self.is_over:
            self._is_killed = True
            get_hub().loop.run_callback(self._throw)

    def perform(self) -> None:
        """Run the task in the current greenlet. Blocks. Never raises."""
        run, self._run = self._run, None
        assert run is not None, "a task runs once"
        self._greenlet = gevent.getcurrent()
        try:
            if not self._is_killed:
                self.value = run()
        except gevent.GreenletExit:
            pass
        except BaseException:  # noqa: BLE001 - the crash boundary of this task; the hub decides which errors end the process
            self.has_crashed = True
            get_hub().handle_error(self, *sys.exc_info())
        finally:
            self._greenlet = None
            self.is_over = True
            if self._waiting is not None:
                self._waiting.set()
            self._on_end(self)

    def _throw(self) -> None:
        if self._greenlet is not None:
            self._greenlet.throw(gevent.GreenletExit())


def _ignore(_: Task) -> None:
    """Do nothing at the end of a task."""


class GreenletReuse:
    """Runs tasks in reused greenlets. The caller owns each task and ends it."""

    def __init__(self) -> None:
        self._idle: list[ReusedGreenlet] = []
        self._is_closed = False

    def begin(self, run: Callable[[], object], name: str, on_end: Callable[[Task], None] = _ignore) -> Task:
        """Start a task, which runs when the current greenlet blocks. Does not block.

        ``on_end`` is called in the greenlet of the task, and must not block.
        """
        task = Task(run, name, on_end)
        if self._idle:
            self._idle.pop().give(task)
        else:
            ReusedGreenlet(self._keep, task).start()
        return task

    def _keep(self, greenlet: ReusedGreenlet) -> bool:
        """Keep a greenlet that has finished its task, unless enough are idle, and return whether it is kept."""
        if self._is_closed or len(self._idle) >= MAX_IDLE:
            return False
        self._idle.append(greenlet)
        return True

    def close(self) -> None:
        """End idle greenlets now and the others after their tasks. Blocks."""
        self._is_closed = True
        idle, self._idle = self._idle, []
        gevent.killall(idle)


class ReusedGreenlet(gevent.Greenlet):  # type: ignore[misc]  # gevent has no types
    """A greenlet that runs one task after another."""

    def __init__(self, keep: Callable[[ReusedGreenlet], bool], first: Task) -> None:
        super().__init__()
        self._keep = keep
        self._next: Task | None = first
        self._waiter: Waiter | None = None

    @property
    def is_idle(self) -> bool:
        return self._next is None

    def give(self, task: Task) -> None:
        """Run a task in this greenlet, which is idle."""
        assert self._waiter is not None
        get_hub().loop.run_callback(self._waiter.switch, task)

    def _run(self) -> None:
        while self._next is not None:
            self.name = self._next.name
            self._next.perform()
            self.name = "idle"
            self._next = None  # so that the finished task can be freed
            self._next = self._wait() if self._keep(self) else None

    def _wait(self) -> Task:
        self._waiter = Waiter()
        task: Task = self._waiter.get()
        return task
