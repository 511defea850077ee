"""Answers that are slow to get: one look-up per key at a time, and a stale answer rather than none."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import gevent
from gevent.pool import Group

from pomagent.runtime.deadline import Clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class Answer(Generic[V]):
    """What is known of one key."""

    value: V | None = None
    """The result of the last look-up that succeeded."""
    error: Exception | None = None
    """Why ``value`` is not a fresh result, or None if it is."""


@dataclass(slots=True)
class _Entry(Generic[V]):
    answer: Answer[V]
    fresh_until: float = float("-inf")
    look_up: gevent.Greenlet | None = None

    @property
    def is_pending(self) -> bool:
        return self.look_up is not None and not self.look_up.ready()


class SingleFlight(Generic[K, V]):
    """Remembers answers, and looks up those that are not fresh in greenlets of its own."""

    def __init__(
        self, look_up: Callable[[K], V], label: str, fresh_s: float, clock: Clock, *, failure_fresh_s: float = 0.0
    ) -> None:
        """``look_up`` may block, and raises OSError or ValueError if it fails. ``label`` names its greenlets.

        After a failure the last answer counts as fresh for ``failure_fresh_s``.
        """
        self._look_up = look_up
        self._label = label
        self._fresh_s = fresh_s
        self._failure_fresh_s = failure_fresh_s
        self._clock = clock
        self._entries: dict[K, _Entry[V]] = {}
        self._group = Group()

    def get(self, key: K, timeout_s: float) -> Answer[V]:
        """Return a fresh answer, or what is known after ``timeout_s``. Blocks unless a fresh answer is known."""
        entry = self._refreshed(key)
        look_up = entry.look_up
        if look_up is not None:
            look_up.join(timeout_s)
            if not look_up.ready():
                return Answer(entry.answer.value, TimeoutError(f"not within {timeout_s:g} s"))
        return entry.answer

    def peek(self, key: K) -> V | None:
        """Return the last value, which may be stale. Start a look-up unless it is fresh. Does not block."""
        return self._refreshed(key).answer.value

    def close(self) -> None:
        """End every look-up. Callers that wait get what is known. Blocks."""
        self._group.kill()

    def _refreshed(self, key: K) -> _Entry[V]:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(Answer())
        if self._clock() >= entry.fresh_until and not entry.is_pending:
            entry.answer = Answer(entry.answer.value, OSError("the look-up was interrupted"))
            entry.look_up = self._group.spawn(self._run, key, entry)
            entry.look_up.name = f"{self._label} {key}"
        return entry

    def _run(self, key: K, entry: _Entry[V]) -> None:
        try:
            entry.answer = Answer(self._look_up(key))
            entry.fresh_until = self._clock() + self._fresh_s
        except (OSError, ValueError) as error:
            entry.answer = Answer(entry.answer.value, error.with_traceback(None))
            entry.fresh_until = self._clock() + self._failure_fresh_s
        finally:
            entry.look_up = None
