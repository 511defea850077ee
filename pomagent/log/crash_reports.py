"""Nothing but events reaches standard error: what others would print there becomes a line of the log.

Three parties print by themselves: gevent a greenlet that crashed, Python a thread that crashed (watchdog's are real
ones), and ``logging`` the warnings of libraries when nobody has configured it.
"""

from __future__ import annotations

import logging
import threading  # noqa: TID251 - only its excepthook; no thread is started here
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import gevent
from gevent.hub import Hub

from pomagent.log import events
from pomagent.log.logger import Logger

_MEANT: Final = (KeyboardInterrupt, SystemExit, gevent.GreenletExit)
"""Ends that are asked for; gevent still takes the first two to the main greenlet."""


def install_crash_boundary(logger: Logger, hub: Hub) -> Callable[[], None]:
    """Makes every crash a ``greenlet.crashed`` line; the returned function puts everything back."""

    def report(name: str, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        if not issubclass(kind, _MEANT):
            text = "".join(traceback.format_exception(kind, error, trace)).rstrip()
            logger.critical(events.GREENLET_CRASHED, name=name, exception=text)

    def report_greenlet(context: Any, kind: Any, error: Any, trace: Any) -> None:
        # Not always a greenlet: it may be a callback of the event loop, or None for the hub itself.
        name = "hub" if context is None else getattr(context, "name", type(context).__name__)
        report(name, kind, error, trace)

    def report_thread(crash: threading.ExceptHookArgs) -> None:
        report(crash.thread.name if crash.thread else "thread", crash.exc_type, crash.exc_value, crash.exc_traceback)

    old_thread_hook, threading.excepthook = threading.excepthook, report_thread
    hub.print_exception = report_greenlet
    library_handler = _LibraryHandler(logger)
    logging.getLogger().addHandler(library_handler)

    def restore() -> None:
        threading.excepthook = old_thread_hook
        del hub.print_exception
        logging.getLogger().removeHandler(library_handler)

    return restore


class _LibraryHandler(logging.Handler):
    """Takes the warnings of libraries that use ``logging`` (watchdog, urllib3) to our log."""

    def __init__(self, logger: Logger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        # Never an error: it is the library's opinion, and nothing a person must act upon by itself.
        self._logger.warning(events.LIBRARY_WARNED, library=record.name, message=record.getMessage())
