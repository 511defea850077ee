"""The request to stop this process, by a signal, the ``drain`` command or an upgrade."""

from __future__ import annotations

from gevent.event import Event


class StopRequest:
    """Remembers that a stop was requested, and by what."""

    def __init__(self) -> None:
        self._is_made = Event()
        self.cause = ""
        """The name of the signal, ``drain`` or ``upgrade``. Empty until a stop is requested."""

    @property
    def is_made(self) -> bool:
        return bool(self._is_made.is_set())

    def make(self, cause: str) -> bool:
        """Request a stop, and return whether this is the first request. Does not block."""
        if self.is_made:
            return False
        self.cause = cause
        self._is_made.set()
        return True

    def wait(self) -> None:
        """Wait until a stop is requested. Blocks."""
        self._is_made.wait()
