"""Limits concurrent handshakes with one gateway. They wait here until ``handshake_admission`` admits them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from gevent import get_hub
from gevent.event import Event

from pomagent.gateway.handshake_admission import Admission
from pomagent.runtime.deadline import Clock


class HandshakeLimit:
    """The limit of one gateway's address, shared by all its dialers."""

    def __init__(self, limit: int, clock: Clock = time.monotonic) -> None:
        self._admission: Admission[Event] = Admission(limit)
        self._clock = clock
        self._timer: object = None
        """Runs until the rate admits the next refill."""

    def resize(self, limit: int) -> None:
        """Change the limit. Handshakes under way count toward it."""
        self._admission.limit = limit
        self._admit()

    @property
    def limit(self) -> int:
        return self._admission.limit

    @property
    def under_way(self) -> int:
        """Number of admitted handshakes that are not over."""
        return self._admission.under_way

    @property
    def waiting(self) -> int:
        """Number of handshakes that wait for admission."""
        return self._admission.waiting

    @contextmanager
    def slot(self, *, urgent: bool) -> Iterator[None]:
        """Hold one of the limit's slots within the block. Blocks until one is free."""
        admitted = Event()
        self._admission.join(admitted, urgent=urgent)
        self._admit()
        try:
            admitted.wait()
            yield
        finally:
            if admitted.is_set():
                self._admission.done()
            else:
                self._admission.leave(admitted)
            self._admit()

    def _admit(self) -> None:
        admission = self._admission
        while admission.waiting and (admitted := admission.admit(self._clock())) is not None:
            admitted.set()
        at = admission.next_at() if admission.waiting else None
        if at is not None and self._timer is None:
            timer = self._timer = get_hub().loop.timer(max(0.001, at - self._clock()))
            timer.start(self._on_timer, timer)

    def _on_timer(self, timer: object) -> None:
        timer.close()  # type: ignore[attr-defined]  # gevent has no types
        self._timer = None
        self._admit()
