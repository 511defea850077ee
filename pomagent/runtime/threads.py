"""What would block the hub, in a thread pool of its kind; its errors are its callers' and nobody else's.

gevent's own pool also prints a traceback for whatever a job raises, as if nobody waited for it: an invalid file, a name
without an address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from gevent.threadpool import ThreadPool

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class Threads:
    """At most ``size`` jobs at a time; further ones wait for their turn."""

    def __init__(self, size: int) -> None:
        self._pool = ThreadPool(size)

    def call(self, job: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        """Run the job in a thread and return what it returns. Blocks. Raises what it raises."""
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
