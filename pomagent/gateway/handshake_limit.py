"""The door to one gateway: handshakes wait here until ``admission`` lets them in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from gevent import get_hub
from gevent.event import Event

from pomagent.gateway.admission import Admission
from pomagent.runtime.deadline import Clock


class HandshakeLimit:
    """At most so many handshakes at a time."""

    def __init__(self, limit: int, clock: Clock = time.monotonic) -> None:
        self._admission: Admission[Event] = Admission(limit)
        self._clock = clock
        self._timer: object = None
        """Runs until the rate lets in the next one."""

    def resize(self, limit: int) -> None:
        """Let in so many from now on; what is under way counts."""
        self._admission.limit = limit
        self._let_in()

    @property
    def limit(self) -> int:
        return self._admission.limit

    @property
    def under_way(self) -> int:
        """Handshakes that are under way."""
        return self._admission.under_way

    @property
    def waiting(self) -> int:
        """Handshakes that wait to be let in."""
        return self._admission.waiting

    @contextmanager
    def slot(self, *, urgent: bool) -> Iterator[None]:
        """Within: one of the places. Blocks until there is one."""
        turn = Event()
        self._admission.ask(turn, urgent=urgent)
        self._let_in()
        try:
            turn.wait()
            yield
        finally:
            if turn.is_set():
                self._admission.done()
            else:
                self._admission.leave(turn)
            self._let_in()

    def _let_in(self) -> None:
        admission = self._admission
        while admission.waiting and (turn := admission.next(self._clock())) is not None:
            turn.set()
        at = admission.next_at() if admission.waiting else None
        if at is not None and self._timer is None:
            timer = self._timer = get_hub().loop.timer(max(0.001, at - self._clock()))
            timer.start(self._on_time, timer)

    def _on_time(self, timer: object) -> None:
        timer.close()  # type: ignore[attr-defined]
        self._timer = None
        self._let_in()
