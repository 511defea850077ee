"""Lines to standard error, or the journal behind it, by a thread of its own: a stuck reader never freezes the hub."""

from __future__ import annotations

import os
import select
import threading  # noqa: TID251 - see LogWriter: it must outlive the hub
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import repeat
from typing import Final, NamedTuple, Protocol

from pomagent.log.journal import JournalSocket, encode

QUEUE_LINES: Final = 10_000
"""About 5 MB of lines: ten seconds of a busy agent. Beyond that the reader is stuck, not slow."""
BATCH_LINES: Final = 200
"""Lines that share one write: some 100 KB, little enough to be lost with a descriptor that fails."""
REST_S: Final = 0.02
"""After it has caught up, while lines gather: each one would wake the thread, which takes the interpreter from the hub.
As much of its log a process may lose that is killed."""
CLOSE_CHECK_MS: Final = 100
"""How often a wait for a full pipe looks whether the time to flush is over."""
READ_CHECK_MS: Final = 5
"""How often the end of the process waits for the journal to read what it was sent."""


class Line(NamedTuple):
    """One event, written."""

    text: str
    fields: bytes = b""
    """The journal's, beside its MESSAGE."""

    @property
    def entry(self) -> bytes:
        """For the journal, which needs no ``<6>`` before the text."""
        return encode({"MESSAGE": self.text.partition(">")[2]}) + self.fields


class Later(Protocol):
    """Lines that come in time, rather than when somebody writes them."""

    def lines(self, *, at_the_end: bool) -> list[Line]:
        """Those whose time has come; all of them at the end."""

    def due_in_s(self) -> float | None:
        """When to ask next; None: not before another line was written."""


class LogWriter:
    """A bounded queue of lines and the thread that writes them; any thread may ``write``, which never blocks.

    A bare thread instead of a worker of gevent's: lines are also written before the hub runs and after it is gone, and
    ``close`` waits for it without a hub. No lock: a destructor that logs would meet it again in its own thread. Each
    counter is changed by one side only.
    """

    def __init__(self, fd: int, journal: JournalSocket | None = None, *, queue_lines: int = QUEUE_LINES) -> None:
        """``journal`` reads ``fd`` as well: what cannot be handed to it is written there."""
        self.fd = fd
        self.journal = journal
        self.describe_loss: Callable[[int], Line] = lambda count: Line(f"{count} log lines were dropped")
        self.later: Later | None = None
        self._refused = 0  # found the queue full
        self._failed = 0  # were handed to a descriptor that is gone
        self._reported = 0
        self._queue_lines = queue_lines
        self._queue: deque[Line] = deque()
        self._is_asleep = False
        self._deadline: float | None = None
        self._closing = threading.Event()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many lines were lost so far."""
        return self._refused + self._failed

    def write(self, text: str, fields: bytes = b"") -> None:
        """Queues a line, or counts it as dropped while the queue is full."""
        if len(self._queue) >= self._queue_lines or self._deadline is not None:
            self._refused += 1
            return
        self._queue.append(Line(text, fields))
        if self._is_asleep:
            self._ring()

    def close(self, timeout_s: float = 1.0) -> bool:
        """Writes what is queued and says whether all of it went out. Blocks the calling thread, hub or not."""
        if self._deadline is None:
            self._deadline = time.monotonic() + timeout_s
            self._closing.set()
            self._ring()
        self._thread.join(timeout_s)
        if self._thread.is_alive():  # inside a blocking write: nothing but the reader can free it
            return False
        if self._bell >= 0:
            os.close(self._bell)
            self._bell = -1
        return not self._queue and self.dropped == self._reported

    def _ring(self) -> None:
        self._is_asleep = False
        with suppress(OSError):  # closed meanwhile by another thread
            os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        while self._deadline is None or (self._queue and time.monotonic() < self._deadline):
            if self._queue:
                self._write_batch()
                if not self._queue:
                    self._closing.wait(REST_S)
            else:
                self._sleep()
            if self.later is not None:
                self._failed += self._put(self.later.lines(at_the_end=False))
        if self.later is not None:
            self._failed += self._put(self.later.lines(at_the_end=True))
        if self.journal is not None:
            self._wait_for_reading(self.journal)

    def _sleep(self) -> None:
        self._is_asleep = True
        # Looked at once more after the flag is up: whoever queues from now on rings.
        if not self._queue and self._deadline is None:
            due_in_s = self.later.due_in_s() if self.later is not None else None
            if due_in_s is None or self._is_rung_within(due_in_s):
                os.eventfd_read(self._bell)
        self._is_asleep = False

    def _is_rung_within(self, seconds: float) -> bool:
        bell = select.poll()
        bell.register(self._bell, select.POLLIN)
        return bool(bell.poll(seconds * 1000 + 1))

    def _write_batch(self) -> None:
        lines = [self._queue.popleft() for _ in repeat(None, min(len(self._queue), BATCH_LINES))]
        self._failed += self._put(lines)
        lost = self.dropped - self._reported
        if lost and not self._put([self.describe_loss(lost)]):
            self._reported += lost

    def _put(self, lines: list[Line]) -> int:
        """Write these lines and return how many were lost."""
        if self.journal is not None:
            lines = lines[self._hand_over(lines, self.journal) :]
        return 0 if not lines or self._write_all(lines) else len(lines)

    def _hand_over(self, lines: list[Line], journal: JournalSocket) -> int:
        """Give lines to the journal and return how many of them it has taken."""
        for number, line in enumerate(lines):
            try:
                while not self._is_handed_over(line, journal):
                    if not self._wait_for_room(journal.fileno()):
                        return number
            except OSError:  # it has gone, or this process has no descriptor left for a large entry
                return number
        return len(lines)

    @staticmethod
    def _is_handed_over(line: Line, journal: JournalSocket) -> bool:
        try:
            journal.send(line.entry)
        except BlockingIOError:
            return False
        return True

    def _write_all(self, lines: list[Line]) -> bool:
        data = memoryview("".join(f"{line.text}\n" for line in lines).encode(errors="backslashreplace"))
        while data:
            try:
                data = data[os.write(self.fd, data) :]
            except BlockingIOError:
                if not self._wait_for_room(self.fd):
                    return False
            except OSError:  # EPIPE, EIO of a hung-up terminal, ENOSPC: these lines are lost, later ones may not be
                return False
        return True

    def _wait_for_room(self, fd: int) -> bool:
        """Waits until a non-blocking descriptor takes more; false when it is time to give up."""
        room = select.poll()
        room.register(fd, select.POLLOUT)
        while not room.poll(CLOSE_CHECK_MS):
            if self._deadline is not None and time.monotonic() >= self._deadline:
                return False
        return True

    def _wait_for_reading(self, journal: JournalSocket) -> None:
        """Stay until the journal knows whose the last entries are: of a process that has gone it cannot tell."""
        assert self._deadline is not None
        while not journal.has_read_all and time.monotonic() < self._deadline:
            select.poll().poll(READ_CHECK_MS)
        journal.close()
