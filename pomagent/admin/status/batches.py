"""Processes long lists in batches, so that a request for a thousand routes does not delay their sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
BATCH_SIZE = 50
"""Items processed, in a few milliseconds, before other greenlets may run."""


def in_batches(items: Iterable[T], give_way: Callable[[], None]) -> Iterator[T]:
    """Yield the items, and call ``give_way``, which lets other greenlets run, after each batch. Blocks only there."""
    for number, item in enumerate(items, 1):
        yield item
        if number % BATCH_SIZE == 0:
            give_way()
