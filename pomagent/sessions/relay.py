"""Copies between a client and its tunnel until the session is over, and says how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, repeat

import gevent

from pomagent.errors import StreamLost, StreamReset
from pomagent.protocol.http2.frames import Code
from pomagent.runtime.deadline import Clock
from pomagent.runtime.greenlets import GreenletReuse, Task
from pomagent.runtime.interrupt import Interrupt
from pomagent.sessions.ends import CLIENT_ABORTED, CLIENT_FINISHED, CLIENT_LOST, CRASHED, GATEWAY_FINISHED, End, Side
from pomagent.sessions.fair_share import FairShare
from pomagent.sessions.read_ahead import ReadAhead
from pomagent.settings import HalfClose
from pomagent.transport.stream import Stream

KILL_TIMEOUT_S = 1.0
"""For the copying greenlets to go; each only has to leave its wait."""
REMOTE_LINGER_S = 5.0
"""Without a byte, after the end of a client on another host, which may have closed or only shut down."""
GREETING_BYTES = 64
"""Of a destination that speaks first, for whoever wants to know what it is."""
LOOK_AGAIN_S = (0.001, 0.005, 0.02, 0.1, 0.5, 1.0)
"""When to ask again whether a client that sent its end has closed; the last one repeats."""


class _TunnelClogged(Exception):
    """The tunnel takes nothing more; what the gateway has sent before may still be on its way."""


class Relay:
    """One session's two directions: up from the client, down from the gateway."""

    def __init__(
        self, client: Stream, tunnel: Stream, *, half_close: HalfClose, half_close_timeout_s: float,
        has_closed: Callable[[], bool | None], fair_share: FairShare, greenlets: GreenletReuse,
        on_greeting: Callable[[bytes], None] = lambda _: None, clock: Clock = time.monotonic,
        carries_half_close: bool = False,
    ) -> None:  # fmt: skip
        """``has_closed`` tells of a client that sent its end: closed, only shut down, or None if nobody can know.

        All relays of the hub share ``fair_share`` and ``greenlets``. ``on_greeting`` gets the destination's first
        bytes if they come before any of the client. ``carries_half_close``: the tunnel can end one direction alone.
        """
        self._client = client
        self._tunnel = tunnel
        self._half_close = half_close
        self._carries_half_close = carries_half_close and half_close == "auto"
        self._half_close_timeout_s = half_close_timeout_s
        self._has_closed = has_closed
        self._fair_share = fair_share
        self._on_greeting = on_greeting
        self._clock = clock
        self._greenlets = greenlets
        self._tasks: set[Task] = set()
        """Greenlets beside the one that runs the relay."""
        self._down: Task | None = None
        self._ahead = ReadAhead(client, self._begin, self._client_lost)
        self._copying = Interrupt()
        self._reading_client = Interrupt()
        self._is_up_over = False
        """Whether nothing of the client goes up any more."""
        self._is_client_lost = False
        self._end: End | None = None
        self.is_forwarding = False
        """Whether bytes of the client are on their way to the gateway, even if the client has gone since."""
        self.bytes_up = 0
        self.bytes_down = 0
        self.first_byte_at: float | None = None
        """By the clock, when the client got its first byte."""
        self.last_byte_at = clock()
        """By the clock, when a byte last went either way; before the first, when it was made."""

    @property
    def is_untouched(self) -> bool:
        """Whether not one byte has gone either way: then another tunnel can take this one's place unnoticed."""
        return not self.bytes_up and not self.bytes_down

    def run(self, early: bytes | bytearray) -> End:
        """Copy until the end; what the destination said before goes first. Blocks. Neither stream is closed."""
        try:
            with self._copying:
                if self._end is None:
                    self._copy(early)
        finally:
            self._ahead.drop()
            left = list(self._tasks)  # all are told before the first wait, in which this greenlet may be killed itself
            for task in left:
                task.kill()
            for task in left:
                task.join(KILL_TIMEOUT_S)
        assert self._end is not None, "whoever ends the copying says why"
        return self._end

    def _copy(self, early: bytes | bytearray) -> None:
        if early:
            self._deliver(memoryview(early))
        self._copy_up()  # in this greenlet: what the client has said already goes at once
        if self._end is None:
            self._begin_down().join()

    def stop(self, end: End) -> None:
        """End the session from any greenlet; the first one's reason counts. Does not block."""
        if self._end is None:
            self._end = end
            self._copying.send()

    def _begin_down(self) -> Task:
        """Copy down from now on, in another greenlet, which begins as soon as this one waits for anything."""
        if self._down is None:
            self._down = self._begin(self._copy_down)
        return self._down

    def _begin(self, run: Callable[[], None]) -> Task:
        task = self._greenlets.begin(run, "relay", self._forget)
        self._tasks.add(task)
        return task

    def _forget(self, task: Task) -> None:
        self._tasks.discard(task)
        if task.has_crashed:
            self.stop(CRASHED)

    # --- down: gateway to client ----------------------------------------------------------------------------------

    def _copy_down(self) -> None:
        """Copy to the end, and wait until the client's kernel has everything: also what came before a loss."""
        try:
            self._copy_down_to_end()
            end = GATEWAY_FINISHED
        except StreamLost as loss:
            end = _ended_by(loss)
        if not self._ahead.wait_until_empty():
            end = CLIENT_LOST
        self.stop(CLIENT_ABORTED if self._is_client_lost else end)

    def _copy_down_to_end(self) -> None:
        tunnel, fair_share, scratch, in_turn = self._tunnel, self._fair_share, self._fair_share.scratch, 0
        while True:
            count = tunnel.recv_into(scratch)
            if count == 0:
                return
            if count:
                self._deliver(scratch[:count])
                in_turn += count
            if self._end is not None:
                return
            if self._ahead.is_full:
                self._ahead.wait_for_room()
            elif count is None or count < len(scratch):  # it had no more: asked again, it would say so at a price
                tunnel.wait_readable()
            in_turn = fair_share.go_on(in_turn)

    def _deliver(self, view: memoryview) -> None:
        if self._is_client_lost:
            return
        self.last_byte_at = self._clock()
        if self.first_byte_at is None:
            self.first_byte_at = self.last_byte_at
            if not self.bytes_up:
                self._on_greeting(bytes(view[:GREETING_BYTES]))
        self.bytes_down += len(view)
        try:
            self._ahead.put(view)
        except StreamLost:
            self._client_lost()

    def _client_lost(self) -> None:
        """The client takes nothing more. What it has sent before still goes up, and what comes down is dropped."""
        self._is_client_lost = True
        self._ahead.drop()
        self._reading_client.send()
        if self._is_up_over:
            self.stop(CLIENT_ABORTED)

    # --- up: client to gateway ------------------------------------------------------------------------------------

    def _copy_up(self) -> None:
        try:
            self._copy_up_to_end()
            self.stop(self._after_client_end())
        except _TunnelClogged:
            self._is_up_over = True
            if self._is_client_lost:
                self.stop(CLIENT_ABORTED)
        except StreamLost:
            self.stop(CLIENT_ABORTED)

    def _copy_up_to_end(self) -> None:
        client, fair_share, scratch, in_turn = self._client, self._fair_share, self._fair_share.scratch, 0
        while True:
            count = client.recv_into(scratch)
            if count:
                self.bytes_up += count
                self.last_byte_at = self._clock()
                self._forward(scratch[:count])
                in_turn += count
            if self._down is None:
                self._begin_down()  # not before: a client's first bytes do not wait until a greenlet is made
            if count == 0:
                return
            if count is None or (count < len(scratch) and not self._is_client_lost):
                with self._reading_client:
                    client.wait_readable()
            in_turn = fair_share.go_on(in_turn)

    def _forward(self, view: memoryview) -> None:
        self.is_forwarding = True
        try:
            taken = self._tunnel.send(view)
            if taken < len(view) or not self._tunnel.flush(0):  # it has to wait, and what comes down may not
                rest = bytes(view[taken:])  # a copy: the scratch is others' as soon as we wait
                self._begin_down()
                self._forward_slowly(rest)
                self._tunnel.flush()
        except StreamLost:
            raise _TunnelClogged from None
        finally:
            self.is_forwarding = False

    def _forward_slowly(self, rest: bytes) -> None:
        view = memoryview(rest)
        while view:
            self._tunnel.wait_writable()
            view = view[self._tunnel.send(view) :]

    def _after_client_end(self) -> End:
        """Wait until nothing more can reach the client that sent its end."""
        if self._half_close == "close":
            return CLIENT_FINISHED
        if self._carries_half_close:
            self._carry_half_close()
        seen, quiet_since = self.bytes_down, self._clock()
        for pause_s in chain(LOOK_AGAIN_S, repeat(LOOK_AGAIN_S[-1])):
            closed = self._has_closed()
            if closed or self._is_client_lost:
                break
            if self.bytes_down != seen or not self._ahead.is_empty:
                seen, quiet_since = self.bytes_down, self._clock()
            linger_s = (
                REMOTE_LINGER_S if closed is None and not self._carries_half_close else self._half_close_timeout_s
            )
            left_s = linger_s - (self._clock() - quiet_since)
            if left_s <= 0:
                break
            gevent.sleep(min(pause_s, left_s))
        return CLIENT_FINISHED

    def _carry_half_close(self) -> None:
        with suppress(StreamLost):  # that the tunnel is lost shows below
            self._tunnel.send_eof()
            self._tunnel.flush(self._half_close_timeout_s)


def _ended_by(loss: StreamLost) -> End:
    """Over HTTP/2 the gateway tells of a destination that has reset its connection."""
    is_reset = isinstance(loss, StreamReset) and loss.code == Code.CONNECT_ERROR
    return End(Side.GATEWAY, "aborted" if is_reset else "lost", is_clean=False, cause=str(loss))
