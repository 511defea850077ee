"""Interrupts a section of another greenlet's code, and never its later code.

``gevent.kill`` cannot guarantee that: it delivers the exception later, wherever the greenlet is by then.
"""

from __future__ import annotations

from types import TracebackType

import gevent
from gevent import get_hub


class _Interrupted(gevent.GreenletExit):  # type: ignore[misc]  # gevent has no types
    """Ends the interrupted section."""


class Interrupt:
    """A context manager around a section that other greenlets can end with ``send``."""

    def __init__(self) -> None:
        self._greenlet: gevent.Greenlet | None = None
        self._error: _Interrupted | None = None
        self._delivery: object = None

    def __enter__(self) -> None:
        assert self._greenlet is None, "one section at a time"
        self._greenlet = gevent.getcurrent()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        mine, self._error = self._error, None  # not kept: its traceback references the frames of the section
        self._greenlet = None
        if self._delivery is not None:
            self._delivery.stop()  # type: ignore[attr-defined]  # the exception may not be delivered yet
            self._delivery = None
        return mine is not None and error is mine

    def send(self) -> None:
        """End the section that is running, if any. Does not block.

        A call from the section's own greenlet has no effect: it can leave the section itself.
        """
        if self._greenlet is None or self._error is not None or self._greenlet is gevent.getcurrent():
            return
        self._error = _Interrupted()
        self._delivery = get_hub().loop.run_callback(self._greenlet.throw, self._error)
