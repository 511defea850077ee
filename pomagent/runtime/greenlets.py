"""Greenlets that go from one piece of work to the next: a new one, with its stack, costs ten times as much."""

from __future__ import annotations

import sys
from collections.abc import Callable

import gevent
from gevent import get_hub
from gevent.event import Event
from gevent.hub import Waiter

MOST_AT_REST = 32
"""That wait for work; each holds some 20 KB. Bursts beyond that are served by new ones."""


class Task:
    """One piece of work under way; for whoever began it what a greenlet would be."""

    def __init__(self, run: Callable[[], object], name: str, on_end: Callable[[Task], None]) -> None:
        self._run: Callable[[], object] | None = run
        self._on_end = on_end
        self._greenlet: gevent.Greenlet | None = None
        """Whose work it is at this moment."""
        self._waiting: Event | None = None
        self._is_killed = False
        self.name = name
        self.is_over = False
        self.has_crashed = False
        """Whether it ended with an exception that was not meant; the hub was told of it."""
        self.value: object = None
        """What came of it, if it ended well."""

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until it is over; False if the time is over first. Blocks."""
        if self.is_over:
            return True
        self._waiting = self._waiting or Event()
        return bool(self._waiting.wait(timeout_s))

    def kill(self) -> None:
        """Have it end wherever it waits, or not begin. Does not block.

        It hits this work only, and never what the same greenlet does afterwards.
        """
        if not self._is_killed and not self.is_over:
            self._is_killed = True
            get_hub().loop.run_callback(self._throw)

    def perform(self) -> None:
        """In a greenlet of the crew: do it. Never raises. Blocks."""
        run, self._run = self._run, None
        assert run is not None, "once"
        self._greenlet = gevent.getcurrent()
        try:
            if not self._is_killed:
                self.value = run()
        except gevent.GreenletExit:
            pass
        except BaseException:  # noqa: BLE001 - the crash boundary of this work; the hub decides what ends the process
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
    """What happens at the end of work that nobody asked about."""


class GreenletReuse:
    """The greenlets; whose a task is says whoever began it, and ends it."""

    def __init__(self) -> None:
        self._at_rest: list[ReusedGreenlet] = []
        self._is_closed = False

    def begin(self, run: Callable[[], object], name: str, on_end: Callable[[Task], None] = _ignore) -> Task:
        """Have this done as soon as the greenlet that runs now waits for anything. Does not block.

        ``on_end`` is called in the greenlet that did it, and must not block.
        """
        task = Task(run, name, on_end)
        if self._at_rest:
            self._at_rest.pop().give(task)
        else:
            ReusedGreenlet(self.rest, task).start()
        return task

    def rest(self, hand: ReusedGreenlet) -> bool:
        """Whether a greenlet that has done its work is to wait for more."""
        if self._is_closed or len(self._at_rest) >= MOST_AT_REST:
            return False
        self._at_rest.append(hand)
        return True

    def close(self) -> None:
        """End those at rest, and the others once they have done their work. Blocks."""
        self._is_closed = True
        at_rest, self._at_rest = self._at_rest, []
        gevent.killall(at_rest)


class ReusedGreenlet(gevent.Greenlet):  # type: ignore[misc]  # gevent has no types
    """One greenlet of the crew."""

    def __init__(self, rest: Callable[[ReusedGreenlet], bool], first: Task) -> None:
        super().__init__()
        self._rest = rest
        self._next: Task | None = first
        self._waiter: Waiter | None = None

    @property
    def is_at_rest(self) -> bool:
        return self._next is None

    def give(self, task: Task) -> None:
        """To one at rest."""
        assert self._waiter is not None
        get_hub().loop.run_callback(self._waiter.switch, task)

    def _run(self) -> None:
        while self._next is not None:
            self.name = self._next.name
            self._next.perform()
            self.name = "at rest"
            self._next = None  # nor does its work outlive it here
            self._next = self._wait() if self._rest(self) else None

    def _wait(self) -> Task:
        self._waiter = Waiter()
        task: Task = self._waiter.get()
        return task
