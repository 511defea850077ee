"""What a tunnel has brought and a slow client has not taken yet."""

from __future__ import annotations

from collections.abc import Callable

from gevent.event import Event

from pomagent.errors import StreamLost
from pomagent.transport.stream import Stream

READ_AHEAD_BYTES = 256 * 1024
"""Read from the tunnel beyond what a slow client takes: at its end the gateway drops what is unread after a second."""
LAST_BYTES_TIMEOUT_S = 300.0
"""A client that takes none of the last bytes for so long is not slow but gone."""


class ReadAhead:
    """What the tunnel has brought and the client has not taken yet."""

    def __init__(
        self, client: Stream, begin: Callable[[Callable[[], None]], object], on_lost: Callable[[], None]
    ) -> None:
        self._client = client
        self._begin = begin
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
        """Send what the client takes now and keep a copy of the rest, to be sent as it goes on reading.

        Raises StreamLost.
        """
        if self._is_dropping:
            return
        if not self._kept:
            view = view[self._client.send(view) :]
            if not view:
                return
            self._begin(self._drain)
        self._kept += view

    def drop(self) -> None:
        """Keep nothing from now on: nobody will take it."""
        self._is_dropping = True
        self._kept = bytearray()  # not clear(): the frames of a failed send may still hold a view of it
        self._progress.set()

    def wait_for_room(self) -> None:
        """Blocks until less than the limit is kept."""
        while self.is_full:
            self._progress.clear()
            self._progress.wait()

    def wait_until_empty(self) -> bool:
        """Blocks until the client's kernel has everything; False if the client takes nothing for too long."""
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
