"""Writes lines to standard error or the journal in a thread, so that a stuck reader never blocks the hub."""

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
"""Maximum queued lines: about 5 MB, ten seconds of a busy agent. Beyond that, the reader is stuck rather than slow."""
BATCH_LINES: Final = 200
"""Maximum lines of one write, about 100 KB, all of which are lost if the descriptor fails."""
REST_S: Final = 0.02
"""Seconds to collect lines after the queue was emptied, because each wake-up of the thread takes the GIL from the hub.

A process that is killed loses at most the lines of this time.
"""
CLOSE_CHECK_MS: Final = 100
"""Milliseconds between checks of the flush deadline while a pipe is full."""
READ_CHECK_MS: Final = 5
"""Milliseconds between checks, at the end of the process, that the journal has read all entries."""


class Line(NamedTuple):
    """One rendered event."""

    text: str
    fields: bytes = b""
    """Fields of the journal entry except MESSAGE."""

    @property
    def entry(self) -> bytes:
        """The journal entry, without the ``<6>`` prefix in MESSAGE."""
        return encode({"MESSAGE": self.text.partition(">")[2]}) + self.fields


class Later(Protocol):
    """A source of lines that become due with time."""

    def lines(self, *, at_the_end: bool) -> list[Line]:
        """Return the lines that are due, or all of them at the end."""

    def due_in_s(self) -> float | None:
        """Return the seconds until the next line is due, or None if it depends on another line."""


class LogWriter:
    """A bounded queue of lines and the thread that writes them. Any thread may ``write``, which never blocks.

    It uses a plain thread instead of gevent's pool, because lines are also written before the hub runs and after it is
    gone, and ``close`` joins the thread without a hub. It uses no lock, because a destructor that logs could deadlock
    in its own thread. Each counter is changed by one side only.
    """

    def __init__(self, fd: int, journal: JournalSocket | None = None, *, queue_lines: int = QUEUE_LINES) -> None:
        """``journal`` reads ``fd``. Lines that cannot be sent to it are written to ``fd``."""
        self.fd = fd
        self.journal = journal
        self.describe_loss: Callable[[int], Line] = lambda count: Line(f"{count} log lines were dropped")
        self.later: Later | None = None
        self._refused = 0  # lines that found the queue full
        self._failed = 0  # lines that could not be written
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
        """Number of lines lost so far."""
        return self._refused + self._failed

    def write(self, text: str, fields: bytes = b"") -> None:
        """Queue a line, or count it as dropped if the queue is full. Never blocks."""
        if len(self._queue) >= self._queue_lines or self._deadline is not None:
            self._refused += 1
            return
        self._queue.append(Line(text, fields))
        if self._is_asleep:
            self._ring()

    def close(self, timeout_s: float = 1.0) -> bool:
        """Write all queued lines and return whether none was lost. Blocks the calling thread."""
        if self._deadline is None:
            self._deadline = time.monotonic() + timeout_s
            self._closing.set()
            self._ring()
        self._thread.join(timeout_s)
        if self._thread.is_alive():  # in a blocking write that only the reader can end
            return False
        if self._bell >= 0:
            os.close(self._bell)
            self._bell = -1
        return not self._queue and self.dropped == self._reported

    def _ring(self) -> None:
        self._is_asleep = False
        with suppress(OSError):  # another thread has closed it
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
        # Checked again after the flag is set: from now on, each queued line rings.
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
        """Write lines and return the number lost."""
        if self.journal is not None:
            lines = lines[self._hand_over(lines, self.journal) :]
        return 0 if not lines or self._write_all(lines) else len(lines)

    def _hand_over(self, lines: list[Line], journal: JournalSocket) -> int:
        """Send lines to the journal and return the number sent."""
        for number, line in enumerate(lines):
            try:
                while not self._is_handed_over(line, journal):
                    if not self._wait_for_room(journal.fileno()):
                        return number
            except OSError:  # the journal is gone, or no descriptor is left for a large entry
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
            except OSError:  # EPIPE, EIO of a hung-up terminal, ENOSPC: later lines may succeed
                return False
        return True

    def _wait_for_room(self, fd: int) -> bool:
        """Wait until a descriptor accepts more, or return False after the flush deadline."""
        room = select.poll()
        room.register(fd, select.POLLOUT)
        while not room.poll(CLOSE_CHECK_MS):
            if self._deadline is not None and time.monotonic() >= self._deadline:
                return False
        return True

    def _wait_for_reading(self, journal: JournalSocket) -> None:
        """Wait until the journal has read all entries, because it cannot identify a process that has ended."""
        assert self._deadline is not None
        while not journal.has_read_all and time.monotonic() < self._deadline:
            select.poll().poll(READ_CHECK_MS)
        journal.close()
