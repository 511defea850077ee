"""Copies bytes between a client and its tunnel until the session ends, and reports how it ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pomagent.errors import StreamLost, StreamReset
from pomagent.protocol.http2.frames import Code
from pomagent.runtime.deadline import Clock
from pomagent.runtime.greenlets import GreenletReuse, Task
from pomagent.runtime.interrupt import Interrupt
from pomagent.sessions.client import Client
from pomagent.sessions.ends import CLIENT_ABORTED, CLIENT_FINISHED, CLIENT_LOST, CRASHED, GATEWAY_FINISHED, End, Side
from pomagent.sessions.fair_share import FairShare
from pomagent.sessions.half_close import HalfClosePolicy, wait_for_answer
from pomagent.sessions.read_ahead import ReadAhead
from pomagent.transport.stream import Stream

KILL_TIMEOUT_S = 1.0
"""Maximum seconds to wait for a killed copying greenlet. Each only has to leave its current wait."""
GREETING_BYTES = 64
"""Maximum bytes of a server's greeting that are reported, enough to recognise its protocol."""


class RelayContext(Protocol):
    """What all relays of one hub share."""

    @property
    def fair_share(self) -> FairShare: ...
    @property
    def greenlets(self) -> GreenletReuse: ...
    @property
    def clock(self) -> Clock: ...


class _TunnelClogged(Exception):
    """The tunnel accepts no more bytes, but what the gateway sent earlier may still arrive."""


class Relay:
    """One session's two directions: up from the client, down from the gateway."""

    def __init__(
        self, client: Client, tunnel: Stream, half_close: HalfClosePolicy, context: RelayContext,
        on_greeting: Callable[[bytes], object] = lambda _: None,
    ) -> None:  # fmt: skip
        """``on_greeting`` is called with the destination's first bytes if they come before any of the client's."""
        self._client = client
        self._tunnel = tunnel
        self._half_close = half_close
        self._fair_share = context.fair_share
        self._on_greeting = on_greeting
        self._clock = context.clock
        self._greenlets = context.greenlets
        self._tasks: set[Task] = set()
        """Tasks in greenlets other than the one that runs the relay."""
        self._down: Task | None = None
        self._read_ahead = ReadAhead(client, self._start, self._lose_client)
        self._copying = Interrupt()
        self._reading_client = Interrupt()
        self._is_up_over = False
        """Whether no more bytes of the client go up."""
        self._end: End | None = None
        self.is_client_lost = False
        """Whether the client accepts no more bytes."""
        self.is_forwarding = False
        """Whether bytes of the client are on their way to the gateway, even if the client has left meanwhile."""
        self.bytes_up = 0
        self.bytes_down = 0
        self.first_byte_at: float | None = None
        """Clock time at which the client got its first byte."""
        self.last_byte_at = self._clock()
        """Clock time of the last byte in either direction, or of the relay's creation before the first byte."""

    @property
    def is_untouched(self) -> bool:
        """Whether no byte has moved yet, so that another tunnel can replace this one unnoticed."""
        return not self.bytes_up and not self.bytes_down

    @property
    def is_delivered(self) -> bool:
        """Whether the client's kernel has everything that came down so far."""
        return self._read_ahead.is_empty

    def run(self, early: bytes | bytearray) -> End:
        """Deliver ``early``, then copy in both directions until the end. Blocks. Closes neither stream."""
        try:
            with self._copying:
                if self._end is None:
                    self._copy(early)
        finally:
            self._read_ahead.drop()
            tasks = list(self._tasks)  # kill all before the first wait, in which this greenlet may be killed itself
            for task in tasks:
                task.kill()
            for task in tasks:
                task.join(KILL_TIMEOUT_S)
        assert self._end is not None, "copying ended without a reason"
        return self._end

    def _copy(self, early: bytes | bytearray) -> None:
        if early:
            self._deliver(memoryview(early))
        self._copy_up()  # in this greenlet, so that bytes which the client has already sent go up at once
        if self._end is None:
            self._start_down().join()

    def stop(self, end: End) -> None:
        """End the session from any greenlet. Only the first call's reason counts. Does not block."""
        if self._end is None:
            self._end = end
            self._copying.send()

    def _start_down(self) -> Task:
        """Start copying down in another greenlet, which first runs when this one waits. Does not block."""
        if self._down is None:
            self._down = self._start(self._copy_down)
        return self._down

    def _start(self, run: Callable[[], None]) -> Task:
        task = self._greenlets.begin(run, "relay", self._forget)
        self._tasks.add(task)
        return task

    def _forget(self, task: Task) -> None:
        self._tasks.discard(task)
        if task.has_crashed:
            self.stop(CRASHED)

    # --- down: gateway to client ----------------------------------------------------------------------------------

    def _copy_down(self) -> None:
        """Copy until the tunnel's end or loss, then wait until the client's kernel has every byte. Blocks."""
        try:
            self._copy_down_to_end()
            end = GATEWAY_FINISHED
        except StreamLost as loss:
            end = _end_of(loss)
        if not self._read_ahead.wait_until_empty():
            end = CLIENT_LOST
        self.stop(CLIENT_ABORTED if self.is_client_lost else end)

    def _copy_down_to_end(self) -> None:
        tunnel, fair_share, scratch, copied = self._tunnel, self._fair_share, self._fair_share.scratch, 0
        while True:
            count = tunnel.recv_into(scratch)
            if count == 0:
                return
            if count:
                self._deliver(scratch[:count])
                copied += count
            if self._end is not None:
                return
            if self._read_ahead.is_full:
                self._read_ahead.wait_for_room()
            elif count is None or count < len(scratch):  # drained: another read would only cost a system call
                tunnel.wait_readable()
            copied = fair_share.wait_for_turn(copied)

    def _deliver(self, view: memoryview) -> None:
        if self.is_client_lost:
            return
        self.last_byte_at = self._clock()
        if self.first_byte_at is None:
            self.first_byte_at = self.last_byte_at
            if not self.bytes_up:
                self._on_greeting(bytes(view[:GREETING_BYTES]))
        self.bytes_down += len(view)
        try:
            self._read_ahead.put(view)
        except StreamLost:
            self._lose_client()

    def _lose_client(self) -> None:
        """Note that the client accepts nothing more: forward what it sent earlier, drop what comes down."""
        self.is_client_lost = True
        self._read_ahead.drop()
        self._reading_client.send()
        if self._is_up_over:
            self.stop(CLIENT_ABORTED)

    # --- up: client to gateway ------------------------------------------------------------------------------------

    def _copy_up(self) -> None:
        try:
            self._copy_up_to_end()
            wait_for_answer(self, self._client, self._tunnel, self._half_close, self._clock)
            self.stop(CLIENT_FINISHED)
        except _TunnelClogged:
            self._is_up_over = True
            if self.is_client_lost:
                self.stop(CLIENT_ABORTED)
        except StreamLost:
            self.stop(CLIENT_ABORTED)

    def _copy_up_to_end(self) -> None:
        client, fair_share, scratch, copied = self._client, self._fair_share, self._fair_share.scratch, 0
        while True:
            count = client.recv_into(scratch)
            if count:
                self.bytes_up += count
                self.last_byte_at = self._clock()
                self._forward(scratch[:count])
                copied += count
            if self._down is None:
                self._start_down()  # only now: a client's first bytes do not wait for a new greenlet
            if count == 0:
                return
            if count is None or (count < len(scratch) and not self.is_client_lost):
                with self._reading_client:
                    client.wait_readable()
            copied = fair_share.wait_for_turn(copied)

    def _forward(self, view: memoryview) -> None:
        self.is_forwarding = True
        try:
            sent = self._tunnel.send(view)
            if sent < len(view) or not self._tunnel.flush(0):  # this direction has to wait, the other one must not
                rest = bytes(view[sent:])  # a copy: other sessions reuse the scratch buffer during the wait
                self._start_down()
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


def _end_of(loss: StreamLost) -> End:
    """Classify a lost tunnel. Over HTTP/2 the gateway reports a destination that reset its connection."""
    is_reset = isinstance(loss, StreamReset) and loss.code == Code.CONNECT_ERROR
    return End(Side.GATEWAY, "aborted" if is_reset else "lost", is_clean=False, cause=str(loss))
