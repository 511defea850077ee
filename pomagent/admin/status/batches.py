"""Long lists in portions, so that whoever asks for all of a thousand routes does not hold up their sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
BATCH_SIZE = 50
"""Some milliseconds, before other greenlets get their turn."""


def in_batches(items: Iterable[T], give_way: Callable[[], None]) -> Iterator[T]:
    """The items; blocks only in ``give_way``, which lets others run."""
    for number, item in enumerate(items, 1):
        yield item
        if number % BATCH_SIZE == 0:
            give_way()
