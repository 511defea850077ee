"""A number of places, taken in the order of asking."""

from __future__ import annotations

from collections import deque

from gevent import Timeout
from gevent.event import Event

MAX_WAITING = 1024
"""That may wait for a place of one kind; beyond, the answer is no at once."""


class SessionLimit:
    """At most ``limit`` holders at a time. The limit may change: nobody loses a place by that."""

    def __init__(self, limit: int, setting: str = "max_sessions") -> None:
        """``setting`` is the limit's name in agent.toml."""
        self._limit = limit
        self._setting = setting
        self._waiting: deque[Event] = deque()
        self.taken = 0
        self.is_overrun = False
        """Whether somebody got no place, and none has been free since."""

    @property
    def why_full(self) -> str:
        """What to do when there is no place, in a sentence."""
        return f"{self._setting} = {self._limit} is reached; raise it, or see who holds so many: pomagent sessions"

    def take(self, timeout_s: float) -> bool:
        """Get a place, waiting for it if need be; False if there is none in time. Blocks."""
        has_place = self._take(timeout_s)
        self.is_overrun = self.is_overrun or not has_place
        return has_place

    def _take(self, timeout_s: float) -> bool:
        if self.taken < self._limit and not self._waiting:
            self.taken += 1
            return True
        if len(self._waiting) >= MAX_WAITING:
            return False
        turn = Event()
        self._waiting.append(turn)
        try:
            with Timeout(timeout_s, False):
                turn.wait()
        except BaseException:
            self._leave(turn)
            raise
        if not turn.is_set():
            self._leave(turn)
        return bool(turn.is_set())

    def give_back(self) -> None:
        self.taken -= 1
        self._call_next()

    def resize(self, limit: int) -> None:
        self._limit = limit
        self._call_next()

    def _leave(self, turn: Event) -> None:
        if turn.is_set():
            self.give_back()
        else:
            self._waiting.remove(turn)

    def _call_next(self) -> None:
        while self._waiting and self.taken < self._limit:
            self.taken += 1
            self._waiting.popleft().set()
        if self.taken < self._limit:
            self.is_overrun = False
