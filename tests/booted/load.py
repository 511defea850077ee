"""Applications that come at a steady pace, whatever becomes of those before them."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from tests.agent_process import connect
from tests.gateway.waiting import scaled, wait_until

PER_SECOND = 50
AT_A_TIME = 400
"""More than come while one of them waits for as long as it may."""


class Load:
    """New connections to an echo port, each with a question and its answer, until the end of the ``with``."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(AT_A_TIME)
        self._asked: list[Future[float]] = []
        self._thread = threading.Thread(target=self._come, name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        self.go_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._pool.shutdown()

    def go_on(self, count: int = PER_SECOND // 2) -> None:
        """Wait until so many more have come, and until it is known what became of them."""
        upto = len(self._asked) + count
        wait_until(lambda: len(self._asked) >= upto, 60, f"{count} more connections")
        for asked in self._asked[:upto]:
            asked.exception(scaled(60))

    @property
    def count(self) -> int:
        return len(self._asked)

    @property
    def refused(self) -> list[BaseException]:
        """What those have met for whom nobody listened."""
        return [error for error in self._errors() if isinstance(error, ConnectionRefusedError)]

    @property
    def lost(self) -> list[BaseException]:
        """What those have met who were let in and got no answer."""
        return [error for error in self._errors() if not isinstance(error, ConnectionRefusedError)]

    @property
    def longest_wait_ms(self) -> int:
        """From the wish to connect to the answer, of those who got one."""
        return round(max(asked.result() for asked in self._asked if not asked.exception(scaled(60))) * 1000)

    def _errors(self) -> list[BaseException]:
        errors = [asked.exception(scaled(60)) for asked in self._asked]
        return [error for error in errors if error]

    def _come(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self._asked.append(self._pool.submit(self._ask, len(self._asked)))
            due += 1 / PER_SECOND
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _ask(self, number: int) -> float:
        began = time.monotonic()
        question = b"%d\n" % number
        with connect(self._port) as client:
            client.sendall(question)
            answer = client.makefile("rb").readline()
        assert answer == question, f"number {number} was not answered"
        return time.monotonic() - began
