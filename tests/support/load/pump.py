"""Keeps a session busy and compares every byte that comes back."""

import hashlib
import random
import threading
from types import TracebackType
from typing import Self

from tests.gateway.waiting import scaled, wait_until
from tests.support.agent.agent_process import connect
from tests.support.agent.bastion import hear


class Pump:
    """A context manager that sends bytes through an echo session and checks that the same bytes come back."""

    def __init__(self, port: int, seed: int) -> None:
        self._source = random.Random(seed)
        self._client = connect(port)
        self._stop = threading.Event()
        self._sent, self._heard = hashlib.sha256(), hashlib.sha256()
        self._thread = threading.Thread(target=self._run)
        self.rounds = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self.go_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(scaled(20))
        self._client.close()
        if error is None:
            assert self._heard.hexdigest() == self._sent.hexdigest()

    def go_on(self, rounds: int = 20) -> None:
        upto = self.rounds + rounds
        wait_until(lambda: self.rounds >= upto, 20, "bytes go round")

    def _run(self) -> None:
        while not self._stop.is_set():
            block = self._source.randbytes(16 * 1024)
            self._sent.update(block)
            self._client.sendall(block)
            self._heard.update(hear(self._client, len(block)))
            self.rounds += 1
