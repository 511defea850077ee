"""Runs jobs that would block the hub in threads, and raises their errors in the caller only.

gevent's pool also prints a traceback for each error, even expected ones: an invalid file, a name that does not
resolve.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from gevent.threadpool import ThreadPool

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class Threads:
    """Runs at most ``size`` jobs at a time. Further jobs wait."""

    def __init__(self, size: int) -> None:
        self._pool = ThreadPool(size)

    def call(self, job: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        """Run the job in a thread and return its result. Blocks. Raises the exceptions of the job."""
        results: list[T] = []
        error: Exception | None = self._pool.apply(_run, (job, arguments, results))
        if error is not None:
            raise error
        return results[0]


def _run(job: Callable[[*Arguments], T], arguments: tuple[*Arguments], results: list[T]) -> Exception | None:
    try:
        results.append(job(*arguments))
    except Exception as error:  # noqa: BLE001 - raised again where the job is awaited
        return error
    return None
