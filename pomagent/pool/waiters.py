"""The clients of one route that wait for a tunnel, in the order of their arrival. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

W = TypeVar("W")

MAX_WAITING = 1024
"""Maximum clients of one route that wait for a tunnel. Further clients are refused at once."""


class Waiters(Generic[W]):
    """A bounded queue that clients may leave at any time."""

    def __init__(self) -> None:
        self._queue: OrderedDict[W, int] = OrderedDict()
        self.mark = 0
        """How many clients have joined so far."""

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def has_room(self) -> bool:
        return len(self._queue) < MAX_WAITING

    def join(self, waiter: W) -> None:
        """Append a client."""
        self._queue[waiter] = self.mark
        self.mark += 1

    def leave(self, waiter: W) -> None:
        """Remove a client that has left. Does nothing if it has been served."""
        self._queue.pop(waiter, None)

    def next(self) -> W | None:
        """Remove and return the client that has waited longest."""
        return self._queue.popitem(last=False)[0] if self._queue else None

    def next_before(self, mark: int) -> W | None:
        """Remove and return the client that has waited longest, if it joined before this mark."""
        is_early = bool(self._queue) and self._queue[next(iter(self._queue))] < mark
        return self.next() if is_early else None

    def before(self, mark: int) -> list[W]:
        """Remove and return the clients that joined before this mark, in the order of their arrival."""
        early = [waiter for waiter, number in self._queue.items() if number < mark]
        for waiter in early:
            del self._queue[waiter]
        return early

    def has_since(self, mark: int) -> bool:
        """Return whether a client waits that joined at this mark or later."""
        return bool(self._queue) and self._queue[next(reversed(self._queue))] >= mark
