"""Holds the bytes that a tunnel has brought and a slow client has not accepted yet."""

from __future__ import annotations

from collections.abc import Callable

from gevent.event import Event

from pomagent.errors import StreamLost
from pomagent.transport.stream import Stream

READ_AHEAD_BYTES = 256 * 1024
"""Maximum bytes read from the tunnel beyond what a slow client accepts.

Reading ahead matters at the end: the gateway drops what is unread one second after it.
"""
LAST_BYTES_TIMEOUT_S = 300.0
"""Seconds in which a client must accept some of its last bytes. After that it is not slow but gone."""


class ReadAhead:
    """The bytes on their way to one client."""

    def __init__(
        self, client: Stream, start: Callable[[Callable[[], None]], object], on_lost: Callable[[], None]
    ) -> None:
        """``start`` runs a function in another greenlet. ``on_lost`` is called there if the client is lost."""
        self._client = client
        self._start = start
        self._on_lost = on_lost
        self._kept = bytearray()
        self._progress = Event()
        self._is_dropping = False

    @property
    def is_full(self) -> bool:
        return len(self._kept) >= READ_AHEAD_BYTES

    @property
    def is_empty(self) -> bool:
        return not self._kept

    def put(self, view: memoryview) -> None:
        """Send what the client accepts now, and keep a copy of the rest to send as the client reads on.

        Does not block. Raises StreamLost.
        """
        if self._is_dropping:
            return
        if not self._kept:
            view = view[self._client.send(view) :]
            if not view:
                return
            self._start(self._drain)
        self._kept += view

    def drop(self) -> None:
        """Discard what is kept and everything put from now on."""
        self._is_dropping = True
        self._kept = bytearray()  # not clear(): the frames of a failed send may still hold a view of the old buffer
        self._progress.set()

    def wait_for_room(self) -> None:
        """Wait until less than the limit is kept. Blocks."""
        while self.is_full:
            self._progress.clear()
            self._progress.wait()

    def wait_until_empty(self) -> bool:
        """Wait until the client's kernel has everything, or return False if the client accepts nothing. Blocks."""
        while self._kept:
            self._progress.clear()
            if not self._progress.wait(LAST_BYTES_TIMEOUT_S):
                return False
        return True

    def _drain(self) -> None:
        try:
            while self._kept:
                self._client.wait_writable()
                self._send_some()
        except StreamLost:
            self._on_lost()

    def _send_some(self) -> None:
        with memoryview(self._kept) as view:  # released before the buffer may shrink
            sent = self._client.send(view)
        del self._kept[:sent]
        if sent:
            self._progress.set()
