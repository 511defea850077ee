"""Where every greenlet and every thread of the agent waits: for whoever looks for one that hangs."""

from __future__ import annotations

import gc
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import greenlet

BATCH_SIZE: Final = 500
"""Looked at before other greenlets get their turn."""
NAMES_SHOWN: Final = 10
"""Of greenlets that wait at the same place."""
DEEPEST: Final = 50
"""Frames that are shown."""
_CONTAINERS: Final = (dict, list, tuple, set, frozenset, deque, types.MethodType)
_OWNERS: Final = ("pomagent.", "gevent.pool", "gevent.pywsgi", "gevent.baseserver", "gevent.server")
_DATA: Final = ("pomagent.settings", "pomagent.config")
"""Own nothing, and there is much of it."""

Stack = tuple[str, ...]


def dump(roots: Iterable[object], give_way: Callable[[], None]) -> str:
    """All that these objects own, with all threads; those with the same stack together. Blocks in ``give_way`` only."""
    together: dict[Stack, list[str]] = {}
    for found in _owned(roots, give_way):
        if not found.dead:
            name = str(getattr(found, "name", "") or type(found).__name__)
            together.setdefault(stack_of(found.gr_frame), []).append(name)
    parts = [_said(names, stack) for stack, names in sorted(together.items(), key=lambda item: -len(item[1]))]
    for number, frame in sys._current_frames().items():
        parts.append(_said([f"thread {number}"], stack_of(frame)))
    return "\n\n".join(parts) + "\n"


def stack_of(frame: types.FrameType | None) -> Stack:
    """The innermost frame first, without reading a source file; none of one that runs or has not begun."""
    lines: list[str] = []
    while frame is not None and len(lines) < DEEPEST:
        code = frame.f_code
        lines.append(f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}")
        frame = frame.f_back
    return tuple(lines)


def _said(names: list[str], stack: Stack) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    head = f"{len(names)}: {', '.join(sorted(names)[:NAMES_SHOWN])}{more}"
    return "\n".join([head, *(f"    {line}" for line in stack or ("runs, or has not begun",))])


def _owned(roots: Iterable[object], give_way: Callable[[], None]) -> Iterator[Any]:
    """Every greenlet that can be reached by way of our own objects and groups.

    The collector knows those made since the start only: what a start builds is frozen out of its sight.
    """
    left = list(roots)
    seen = {id(each): each for each in left}  # kept alive, or another object might get the number of one that has gone
    count = 0
    while left:
        owner = left.pop()
        count += 1
        if count % BATCH_SIZE == 0:
            give_way()
        if isinstance(owner, greenlet.greenlet):
            yield owner
            continue
        for each in gc.get_referents(owner):
            if id(each) not in seen and _leads_on(each):
                seen[id(each)] = each
                left.append(each)


def _leads_on(thing: object) -> bool:
    if isinstance(thing, (greenlet.greenlet, *_CONTAINERS)):
        return True
    module = getattr(type(thing), "__module__", "") or ""
    return module.startswith(_OWNERS) and not module.startswith(_DATA)
