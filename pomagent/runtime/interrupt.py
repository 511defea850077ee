"""Ends what one greenlet waits for from another one, and never hits what it does afterwards.

``gevent.kill`` cannot promise that: the exception is delivered a moment later, wherever the greenlet is by then.
"""

from __future__ import annotations

from types import TracebackType

import gevent
from gevent import get_hub


class _Interrupted(gevent.GreenletExit):  # type: ignore[misc]  # gevent has no types
    """Leaves the stretch that was to end."""


class Interrupt:
    """A context manager around the stretch of a greenlet's work that others may end with ``send``."""

    def __init__(self) -> None:
        self._greenlet: gevent.Greenlet | None = None
        self._error: _Interrupted | None = None
        self._delivery: object = None

    def __enter__(self) -> None:
        assert self._greenlet is None, "one stretch at a time"
        self._greenlet = gevent.getcurrent()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        mine, self._error = self._error, None  # not kept: its traceback holds the frames of the whole stretch
        self._greenlet = None
        if self._delivery is not None:
            self._delivery.stop()  # type: ignore[attr-defined]  # it may still be on its way
            self._delivery = None
        return mine is not None and error is mine

    def send(self) -> None:
        """End the stretch that is running, if one is. Does not block.

        Its own greenlet is never interrupted: whoever decides there just leaves.
        """
        if self._greenlet is None or self._error is not None or self._greenlet is gevent.getcurrent():
            return
        self._error = _Interrupted()
        self._delivery = get_hub().loop.run_callback(self._greenlet.throw, self._error)
