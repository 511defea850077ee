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
        self._line: OrderedDict[W, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._line)

    @property
    def has_room(self) -> bool:
        return len(self._line) < MAX_WAITING

    def join(self, waiter: W) -> None:
        self._line[waiter] = None

    def leave(self, waiter: W) -> None:
        """Forget a waiter that has left; no harm if it was served meanwhile."""
        self._line.pop(waiter, None)

    def next(self) -> W | None:
        """Remove and return whoever has waited longest."""
        return self._line.popitem(last=False)[0] if self._line else None
