"""Turns crashes and warnings of libraries into log events, so that nothing else is written to standard error.

Three parties would print there: gevent reports a crashed greenlet, Python a crashed thread (watchdog uses real
threads), and ``logging``, unless configured, the warnings of libraries.
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
"""Intended ends, which are no crashes. gevent still raises the first two in the main greenlet."""


def install_crash_boundary(logger: Logger, hub: Hub) -> Callable[[], None]:
    """Log every crash as ``greenlet.crashed``. The returned function removes the hooks."""

    def report(name: str, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        if not issubclass(kind, _MEANT):
            text = "".join(traceback.format_exception(kind, error, trace)).rstrip()
            logger.critical(events.GREENLET_CRASHED, name=name, exception=text)

    def report_greenlet(context: Any, kind: Any, error: Any, trace: Any) -> None:
        # The context may also be a callback of the event loop, or None for the hub itself.
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
    """Logs the warnings of libraries that use ``logging`` (watchdog, urllib3)."""

    def __init__(self, logger: Logger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        # Always a warning: a library's error alone requires no action by an operator.
        self._logger.warning(events.LIBRARY_WARNED, library=record.name, message=record.getMessage())
