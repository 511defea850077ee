"""Lists where every greenlet and thread of the agent waits, to find one that hangs."""

from __future__ import annotations

import gc
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import greenlet

BATCH_SIZE: Final = 500
"""Objects inspected before other greenlets may run."""
NAMES_SHOWN: Final = 10
"""Maximum names listed of greenlets with the same stack."""
MAX_FRAMES: Final = 50
"""Maximum frames listed of a stack."""
_CONTAINERS: Final = (dict, list, tuple, set, frozenset, deque, types.MethodType)
_OWNERS: Final = ("pomagent.", "gevent.pool", "gevent.pywsgi", "gevent.baseserver", "gevent.server")
_DATA: Final = ("pomagent.settings", "pomagent.config")
"""Modules with many objects, none of which owns a greenlet."""

Stack = tuple[str, ...]


def dump(roots: Iterable[object], give_way: Callable[[], None]) -> str:
    """Return the stacks of all greenlets reachable from ``roots``, and of all threads, grouped by stack.

    Blocks only in ``give_way``.
    """
    names_by_stack: dict[Stack, list[str]] = {}
    for found in _owned(roots, give_way):
        if not found.dead:
            name = str(getattr(found, "name", "") or type(found).__name__)
            names_by_stack.setdefault(stack_of(found.gr_frame), []).append(name)
    parts = [_entry(names, stack) for stack, names in sorted(names_by_stack.items(), key=lambda item: -len(item[1]))]
    for number, frame in sys._current_frames().items():
        parts.append(_entry([f"thread {number}"], stack_of(frame)))
    return "\n\n".join(parts) + "\n"


def stack_of(frame: types.FrameType | None) -> Stack:
    """Return the frames, innermost first, without reading source files; empty if it runs or has not started."""
    lines: list[str] = []
    while frame is not None and len(lines) < MAX_FRAMES:
        code = frame.f_code
        lines.append(f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}")
        frame = frame.f_back
    return tuple(lines)


def _entry(names: list[str], stack: Stack) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    head = f"{len(names)}: {', '.join(sorted(names)[:NAMES_SHOWN])}{more}"
    return "\n".join([head, *(f"    {line}" for line in stack or ("running, or not started",))])


def _owned(roots: Iterable[object], give_way: Callable[[], None]) -> Iterator[Any]:
    """Yield every greenlet reachable through our own objects and groups.

    The garbage collector cannot list them all: it no longer tracks objects from the start (``gc.freeze``).
    """
    pending = list(roots)
    seen = {id(each): each for each in pending}  # keeps them alive: a new object could reuse the id of a freed one
    count = 0
    while pending:
        owner = pending.pop()
        count += 1
        if count % BATCH_SIZE == 0:
            give_way()
        if isinstance(owner, greenlet.greenlet):
            yield owner
            continue
        for each in gc.get_referents(owner):
            if id(each) not in seen and _may_own_greenlets(each):
                seen[id(each)] = each
                pending.append(each)


def _may_own_greenlets(thing: object) -> bool:
    if isinstance(thing, (greenlet.greenlet, *_CONTAINERS)):
        return True
    module = getattr(type(thing), "__module__", "") or ""
    return module.startswith(_OWNERS) and not module.startswith(_DATA)
