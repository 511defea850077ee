"""The clients of one route that wait for a tunnel, in the order of their coming. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

W = TypeVar("W")

MAX_WAITING = 1024
"""Clients of one route that wait for a tunnel; beyond, they are refused at once."""


class Waiters(Generic[W]):
    """A bounded line; who has left is in nobody's way."""

    def __init__(self) -> None:
        self._line: OrderedDict[W, int] = OrderedDict()
        self.mark = 0
        """How many have ever come."""

    def __len__(self) -> int:
        return len(self._line)

    @property
    def has_room(self) -> bool:
        return len(self._line) < MAX_WAITING

    def join(self, waiter: W) -> None:
        self._line[waiter] = self.mark
        self.mark += 1

    def leave(self, waiter: W) -> None:
        """Forget a waiter that has left; no harm if it was served meanwhile."""
        self._line.pop(waiter, None)

    def next(self) -> W | None:
        """Remove and return whoever has waited longest."""
        return self._line.popitem(last=False)[0] if self._line else None

    def next_before(self, mark: int) -> W | None:
        """The same, but only if they came before this mark."""
        is_early = bool(self._line) and self._line[next(iter(self._line))] < mark
        return self.next() if is_early else None

    def before(self, mark: int) -> list[W]:
        """Remove and return who came before this mark, the longest waiting first."""
        early = [waiter for waiter, number in self._line.items() if number < mark]
        for waiter in early:
            del self._line[waiter]
        return early

    def has_since(self, mark: int) -> bool:
        """Whether anybody waits who came at this mark or later."""
        return bool(self._line) and self._line[next(reversed(self._line))] >= mark
