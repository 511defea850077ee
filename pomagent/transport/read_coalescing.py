"""Wakes the reader of a bulk transfer once much is readable, instead of for each piece that arrives."""

from __future__ import annotations

import math
import socket
from typing import Any

from pomagent.runtime.hub import wait_for
from pomagent.transport import tcp

WAKE_BYTES = 128 * 1024
"""Bytes that wake a bulk transfer's reader, as many as one read takes.

Waking for each piece that a gateway sends costs a quarter more processor time over HTTP/2, and as much over HTTP/1.1
where the gateway is slower than this process (measured).
"""
WAKE_TIMEOUT_S = 0.001
"""Seconds after which fewer bytes will do. This is the delay of a transfer's last piece."""
MIN_BULK_BYTES, MAX_BULK_BYTES = 4 * 1024 * 1024, 256 * 1024 * 1024
"""Limits of how many bytes must come in large reads before a stream counts as bulk.

The number doubles after each wait that times out, and falls by WAKE_BYTES after each one that does not, so that a
sender which waits for an answer to each block seldom pays WAKE_TIMEOUT_S.
"""
LARGE_READ_BYTES = 16 * 1024
"""Bytes above which a read counts towards a bulk transfer. Smaller reads count against it."""


class ReadCoalescing:
    """Detects one stream's bulk transfers and waits for their bytes."""

    __slots__ = ("_bulk_bytes", "_excess_bytes", "_is_coalescing")

    def __init__(self) -> None:
        self._excess_bytes = 0
        """Bytes read so far beyond LARGE_READ_BYTES per read, never negative."""
        self._bulk_bytes: float = MIN_BULK_BYTES
        """Excess at which the stream counts as bulk."""
        self._is_coalescing = False
        """Whether the kernel wakes the reader for WAKE_BYTES only."""

    def note_read(self, count: int) -> None:
        """Count a read of this many bytes."""
        excess = self._excess_bytes + count - LARGE_READ_BYTES
        self._excess_bytes = excess if excess > 0 else 0

    def wait(self, sock: socket.socket, reader: Any, timeout_s: float | None) -> bool:
        """Wait until ``sock`` is readable, or return False after the timeout. Blocks.

        Only a wait without a timeout is coalesced.
        """
        if timeout_s is None and self._excess_bytes >= self._bulk_bytes and self._coalesce(sock):
            self._wait_for_much(reader)
            return True
        if self._is_coalescing:
            self._is_coalescing = not tcp.wake_for(sock, 1)
        return wait_for(reader, timeout_s)

    def _coalesce(self, sock: socket.socket) -> bool:
        if not self._is_coalescing:
            self._is_coalescing = tcp.wake_for(sock, WAKE_BYTES)
            if not self._is_coalescing:
                self._bulk_bytes = math.inf  # this socket will never support it
        return self._is_coalescing

    def _wait_for_much(self, reader: Any) -> None:
        if wait_for(reader, WAKE_TIMEOUT_S):
            self._bulk_bytes = max(MIN_BULK_BYTES, self._bulk_bytes - WAKE_BYTES)
        else:
            self._excess_bytes, self._bulk_bytes = 0, min(2 * self._bulk_bytes, MAX_BULK_BYTES)
