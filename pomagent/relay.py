"""Copies between a client and its tunnel until the session is over, and says how it ended."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from itertools import chain, repeat

import gevent
from gevent.event import Event
from gevent.pool import Group

from pomagent.deadline import Clock
from pomagent.errors import StreamLost
from pomagent.settings import HalfClose
from pomagent.stream import SCRATCH_BYTES, Stream

READ_AHEAD_BYTES = 256 * 1024
"""Read from the tunnel beyond what a slow client takes: at its end the gateway drops what is unread after a second."""
SLICE_BYTES = 512 * 1024
"""Copied in one go before other greenlets get their turn: below a millisecond at 1 GB/s."""
LAST_BYTES_TIMEOUT_S = 300.0
"""A client that takes none of the last bytes for so long is not slow but gone."""
REMOTE_LINGER_S = 5.0
"""Without a byte, after the end of a client on another host, which may have closed or only shut down."""
LOOK_AGAIN_S = (0.001, 0.005, 0.02, 0.1, 0.5, 1.0)
"""When to ask again whether a client that sent its end has closed; the last one repeats."""


class Side(Enum):
    CLIENT = "client"
    GATEWAY = "gateway"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class End:
    """Who ended a session, and why: the words of ``session.closed``."""

    side: Side
    reason: str
    is_clean: bool = True
    """Whether the client may take the end for the destination's own; otherwise it sees a reset."""


CLIENT_FINISHED = End(Side.CLIENT, "finished")
CLIENT_ABORTED = End(Side.CLIENT, "aborted", is_clean=False)
GATEWAY_FINISHED = End(Side.GATEWAY, "finished")
GATEWAY_LOST = End(Side.GATEWAY, "lost", is_clean=False)
IDLE = End(Side.AGENT, "idle", is_clean=False)
LIFETIME_OVER = End(Side.AGENT, "lifetime", is_clean=False)
DRAINED = End(Side.AGENT, "drained", is_clean=False)
REMOVED = End(Side.AGENT, "removed", is_clean=False)
CRASHED = End(Side.AGENT, "aborted", is_clean=False)
CLIENT_LOST = End(Side.CLIENT, "lost", is_clean=False)


class _Stop(gevent.GreenletExit):  # type: ignore[misc]  # gevent has no types
    """Thrown into the copying greenlets once the end is decided."""


class Relay:
    """One session's two directions: up from the client, down from the gateway."""

    def __init__(
        self, client: Stream, tunnel: Stream, *, half_close: HalfClose, half_close_timeout_s: float,
        has_closed: Callable[[], bool | None], scratch: memoryview, clock: Clock = time.monotonic,
    ) -> None:  # fmt: skip
        """``has_closed`` tells of a client that sent its end: closed, only shut down, or None if nobody can know.

        ``scratch`` may be shared by all relays of the hub.
        """
        self._client = client
        self._tunnel = tunnel
        self._half_close = half_close
        self._half_close_timeout_s = half_close_timeout_s
        self._has_closed = has_closed
        self._scratch = scratch
        self._clock = clock
        self._group = Group()
        self._ahead = _ReadAhead(client, self._spawn, self._client_lost)
        self._down: gevent.Greenlet | None = None
        self._end: End | None = None
        self._is_thrown = False
        self.bytes_up = 0
        self.bytes_down = 0
        self.first_byte_at: float | None = None
        """By the clock, when the client got its first byte."""

    @property
    def is_untouched(self) -> bool:
        """Whether not one byte has gone either way: then another tunnel can take this one's place unnoticed."""
        return not self.bytes_up and not self.bytes_down

    def run(self, early: bytes | bytearray) -> End:
        """Copy until the end; what the destination said before goes first. Blocks. Neither stream is closed."""
        self._down = gevent.getcurrent()
        try:
            self._spawn(self._copy_up)
            if early:
                self._deliver(memoryview(early))
            self.stop(self._copy_down())
        except _Stop:
            self._is_thrown = False
        except StreamLost:
            self.stop(GATEWAY_LOST)
        finally:
            self._await_stop()
            self._group.kill()
        assert self._end is not None, "whoever stops a relay says why"
        return self._end

    def stop(self, end: End) -> None:
        """End the session from any greenlet; the first one's reason counts. Does not block."""
        if self._end is not None:
            return
        self._end = end
        if self._down is not None and self._down is not gevent.getcurrent():
            self._is_thrown = True
            gevent.kill(self._down, _Stop)

    def _await_stop(self) -> None:
        """Take a ``_Stop`` that is on its way before it hits whatever this greenlet does next."""
        while self._is_thrown:
            try:
                gevent.sleep(1)
            except _Stop:
                self._is_thrown = False

    def _spawn(self, run: Callable[[], None]) -> None:
        self._group.spawn(run).link_exception(lambda _: self.stop(CRASHED))

    # --- down: gateway to client ----------------------------------------------------------------------------------

    def _copy_down(self) -> End:
        tunnel, scratch, in_slice = self._tunnel, self._scratch, 0
        while True:
            count = tunnel.recv_into(scratch)
            if count:
                self._deliver(scratch[:count])
                in_slice += count
                if self._ahead.is_full:
                    self._ahead.wait_for_room()
                    in_slice = 0
                elif in_slice >= SLICE_BYTES:
                    gevent.sleep(0)
                    in_slice = 0
            elif count is None:
                tunnel.wait_readable()
                in_slice = 0
            else:
                return GATEWAY_FINISHED if self._ahead.wait_until_empty() else CLIENT_LOST

    def _deliver(self, view: memoryview) -> None:
        if self.first_byte_at is None:
            self.first_byte_at = self._clock()
        self.bytes_down += len(view)
        try:
            self._ahead.put(view)
        except StreamLost:
            self._client_lost()
            raise _Stop from None

    def _client_lost(self) -> None:
        self.stop(CLIENT_ABORTED)

    # --- up: client to gateway ------------------------------------------------------------------------------------

    def _copy_up(self) -> None:
        try:
            self._copy_up_to_end()
        except StreamLost:
            self.stop(CLIENT_ABORTED)
            return
        self.stop(self._after_client_end())

    def _copy_up_to_end(self) -> None:
        client, scratch, in_slice = self._client, self._scratch, 0
        while True:
            count = client.recv_into(scratch)
            if count:
                self.bytes_up += count
                self._forward(scratch[:count])
                in_slice += count
                if in_slice >= SLICE_BYTES:
                    gevent.sleep(0)
                    in_slice = 0
            elif count is None:
                client.wait_readable()
                in_slice = 0
            else:
                return

    def _forward(self, view: memoryview) -> None:
        try:
            taken = self._tunnel.send(view)
            if taken < len(view):
                self._forward_slowly(bytes(view[taken:]))  # a copy: the scratch is others' as soon as we wait
            self._tunnel.flush()
        except StreamLost:
            # Only the way up is known to be broken. What the gateway has sent before may still be on its way down.
            raise gevent.GreenletExit from None

    def _forward_slowly(self, rest: bytes) -> None:
        view = memoryview(rest)
        while view:
            self._tunnel.wait_writable()
            view = view[self._tunnel.send(view) :]

    def _after_client_end(self) -> End:
        """Wait until nothing more can reach the client that sent its end."""
        if self._half_close == "close":
            return CLIENT_FINISHED
        seen, quiet_since = self.bytes_down, self._clock()
        for pause_s in chain(LOOK_AGAIN_S, repeat(LOOK_AGAIN_S[-1])):
            closed = self._has_closed()
            if closed:
                break
            if self.bytes_down != seen or not self._ahead.is_empty:
                seen, quiet_since = self.bytes_down, self._clock()
            linger_s = REMOTE_LINGER_S if closed is None else self._half_close_timeout_s
            if self._clock() - quiet_since >= linger_s:
                break
            gevent.sleep(pause_s)
        return CLIENT_FINISHED


class _ReadAhead:
    """What the tunnel has brought and the client has not taken yet."""

    def __init__(
        self, client: Stream, spawn: Callable[[Callable[[], None]], None], on_lost: Callable[[], None]
    ) -> None:
        self._client = client
        self._spawn = spawn
        self._on_lost = on_lost
        self._chunks: deque[memoryview] = deque()
        self._size = 0
        self._progress = Event()

    @property
    def is_full(self) -> bool:
        return self._size >= READ_AHEAD_BYTES

    @property
    def is_empty(self) -> bool:
        return not self._size

    def put(self, view: memoryview) -> None:
        """Send what the client takes now and keep a copy of the rest, to be sent as it goes on reading."""
        if not self._chunks:
            view = view[self._client.send(view) :]
            if not view:
                return
            self._spawn(self._drain)
        self._chunks.append(memoryview(bytes(view)))
        self._size += len(view)

    def wait_for_room(self) -> None:
        """Blocks until less than the limit is kept."""
        while self.is_full:
            self._progress.clear()
            self._progress.wait()

    def wait_until_empty(self) -> bool:
        """Blocks until the client's kernel has everything; False if the client takes nothing for too long."""
        while self._size:
            self._progress.clear()
            if not self._progress.wait(LAST_BYTES_TIMEOUT_S):
                return False
        return True

    def _drain(self) -> None:
        try:
            while self._chunks:
                self._client.wait_writable()
                self._send_some()
        except StreamLost:
            self._on_lost()

    def _send_some(self) -> None:
        while self._chunks:
            sent = self._client.send(self._chunks[0])
            if not sent:
                break
            self._size -= sent
            if sent == len(self._chunks[0]):
                self._chunks.popleft()
            else:
                self._chunks[0] = self._chunks[0][sent:]
        self._progress.set()


def new_scratch() -> memoryview:
    """A buffer for all relays of one hub."""
    return memoryview(bytearray(SCRATCH_BYTES))
