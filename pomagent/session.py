"""One client from accept to close: a place, a tunnel, the relay, a proper end, one line in the log."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Protocol

import gevent

from pomagent import events
from pomagent.deadline import Clock, Deadline
from pomagent.errors import PoolError, Recovery, StreamLost, TunnelError
from pomagent.log import Logger
from pomagent.places import Places
from pomagent.protocol.lifecycle import Reason
from pomagent.relay import (
    CLIENT_ABORTED,
    CLIENT_LOST,
    GATEWAY_FINISHED,
    GATEWAY_LOST,
    IDLE,
    LAST_BYTES_TIMEOUT_S,
    LIFETIME_OVER,
    End,
    Relay,
    Side,
)
from pomagent.settings import Route
from pomagent.stream import Stream
from pomagent.tunnel import Tunnel

PLACE_TIMEOUT_S = 1.0
"""For a place among ``max_sessions``: sessions of short-lived applications end within milliseconds."""
LOOK_S = (0.005, 0.02, 0.1, 0.5)
"""How often to look whether a client's kernel has the last bytes; the last one repeats."""


Lease = Callable[[Deadline], Tunnel]
"""A ready tunnel of the route. Blocks. Raises PoolError, TunnelError."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all sessions of the agent share."""

    places: Places
    """Of the whole agent."""
    scratch: memoryview
    log_sessions: Callable[[], str]
    clock: Clock = time.monotonic


class Client(Stream, Protocol):
    """The local side of a session."""

    def is_at_end(self) -> bool:
        """Whether the client has sent its end and nothing that is still unread."""

    def has_closed(self) -> bool | None:
        """Of a client that sent its end: closed (True), only shut down (False), or nobody can know (None)."""


class Session:
    """A client and, once leased, its tunnel."""

    def __init__(
        self, client: Client, peer: str, route: Route, lease: Lease, places: Places,
        surroundings: Surroundings, log: Logger, generation: int,
    ) -> None:  # fmt: skip
        self._client = client
        self._route = route
        self._lease_tunnel = lease
        self._places = (surroundings.places, places)
        self._shared = surroundings
        self._clock = surroundings.clock
        self._log = log.bind(peer=peer)
        self._generation = generation
        self._began = self._quiet_since = surroundings.clock()
        self._lifetime_s = route.max_lifetime_s * random.uniform(0.9, 1.1)  # noqa: S311 - spreads, does not protect
        self._seen_bytes = 0
        self._waited_ms = 0
        self._waiting: gevent.Greenlet | None = None
        self._relay: Relay | None = None
        self._failure = ""

    def run(self) -> str:
        """Serve the client and return why it failed, in a sentence; empty if it did not. Blocks."""
        taken: list[Places] = []
        try:
            for places in self._places:
                if not places.take(PLACE_TIMEOUT_S):
                    self._refused("max_sessions is reached; raise it, or find who holds so many", reason="limit")
                    return self._failure
                taken.append(places)
            self._log.debug(events.SESSION_OPENED)
            self._serve()
            return self._failure
        finally:
            self._client.abort()  # does nothing to a client that was closed in order
            for places in taken:
                places.give_back()

    def stop(self, end: End) -> None:
        """End the session, or the wait for a tunnel. Does not block."""
        if self._relay is not None:
            self._relay.stop(end)
        elif self._waiting is not None:
            gevent.kill(self._waiting, _Left(end))

    def check(self, now: float) -> None:
        """End the session if a limit of the route is reached or a side is gone. Does not block."""
        if self._relay is None:
            if self._waiting is not None and self._client.is_at_end() and self._client.has_closed():
                self.stop(CLIENT_ABORTED)
        elif self._client.is_lost():
            self._relay.stop(CLIENT_LOST)
        elif self._lifetime_s and now - self._began >= self._lifetime_s:
            self._relay.stop(LIFETIME_OVER)
        elif self._route.idle_timeout_s and self._quiet_s(self._relay, now) >= self._route.idle_timeout_s:
            self._relay.stop(IDLE)

    def _quiet_s(self, relay: Relay, now: float) -> float:
        total = relay.bytes_up + relay.bytes_down
        if total != self._seen_bytes:
            self._seen_bytes, self._quiet_since = total, now
        return now - self._quiet_since

    # --- with a place ---------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        tunnel = self._lease()
        if tunnel is None:
            return
        relay, end = self._relay_over(tunnel)
        if end in (GATEWAY_FINISHED, GATEWAY_LOST) and tunnel.was_warm and relay.is_untouched:
            tunnel.close(Reason.PEER_CLOSED)  # it died while nobody used it: once, another takes its place unnoticed
            self._log.debug(events.TUNNEL_CLOSED, reason=Reason.PEER_CLOSED, request_id=tunnel.request_id)
            tunnel = self._lease()
            if tunnel is None:
                return
            relay, end = self._relay_over(tunnel)
        self._closed(tunnel, relay, end)
        _close_client(self._client, end)
        if end.side is Side.CLIENT and end.is_clean:
            tunnel.finish()
        else:
            tunnel.close(Reason.FINISHED if end.is_clean else Reason.ABORTED)

    def _lease(self) -> Tunnel | None:
        self._waiting = gevent.getcurrent()
        try:
            tunnel = self._lease_tunnel(Deadline(self._route.wait_timeout_s, self._clock))
        except (TunnelError, PoolError) as error:
            self._refused(str(error), error.recovery)
            return None
        except _Left as left:
            self._refused("the client left, or the route ended, while it waited for a tunnel", reason=left.end.reason)
            return None
        finally:
            self._waiting = None
        self._waited_ms = self._since(self._clock())
        return tunnel

    def _relay_over(self, tunnel: Tunnel) -> tuple[Relay, End]:
        relay = self._relay = Relay(
            self._client, tunnel.stream, half_close=self._route.half_close,
            half_close_timeout_s=self._route.half_close_timeout_s, has_closed=self._client.has_closed,
            scratch=self._shared.scratch, clock=self._clock,
        )  # fmt: skip
        try:
            return relay, relay.run(tunnel.early)
        except BaseException:
            tunnel.close(Reason.ABORTED)
            raise

    # --- its lines in the log -------------------------------------------------------------------------------------

    def _closed(self, tunnel: Tunnel, relay: Relay, end: End) -> None:
        if not end.is_clean:
            self._failure = f"ended by the {end.side.value}: {end.reason}"
        wish = self._shared.log_sessions()
        if wish == "none" or (wish == "errors" and end.is_clean):
            return
        first = relay.first_byte_at
        times = tunnel.timings
        self._log.info(
            events.SESSION_CLOSED, side=end.side.value, reason=end.reason, bytes_up=relay.bytes_up,
            bytes_down=relay.bytes_down, waited_ms=self._waited_ms, first_byte_ms=first and self._since(first),
            tcp_ms=_rounded(times.tcp_ms), tls_ms=_rounded(times.tls_ms), connect_ms=_rounded(times.connect_ms),
            duration_ms=self._since(self._clock()), warm=tunnel.was_warm, request_id=tunnel.request_id,
            generation=self._generation,
        )  # fmt: skip

    def _refused(self, error: str, recovery: Recovery = Recovery.RETRY, reason: str = "") -> None:
        self._failure = error
        self._log.warning(
            events.SESSION_REFUSED, error=error, recovery=recovery.value, waited_ms=self._since(self._clock()),
            **({"reason": reason} if reason else {}),
        )  # fmt: skip

    def _since(self, at: float) -> int:
        return round((at - self._began) * 1000)


class _Left(gevent.GreenletExit):  # type: ignore[misc]  # gevent has no types
    """Ends the wait for a tunnel."""

    def __init__(self, end: End) -> None:
        super().__init__()
        self.end = end


def _close_client(client: Stream, end: End) -> None:
    """End the client's connection: in order after the destination's own end, else with a reset.

    What the client has not read stays readable, as long as it goes on reading. Blocks.
    """
    if not end.is_clean:
        client.abort()
        return
    scrap = memoryview(bytearray(4096))
    try:
        client.send_eof()
        last, since = client.unsent_bytes(), time.monotonic()
        for pause_s in chain(LOOK_S, repeat(LOOK_S[-1])):
            while count := client.recv_into(scrap):  # unread input would turn our close into a reset
                pass
            left = client.unsent_bytes()
            if left != last:
                last, since = left, time.monotonic()
            if count == 0 or not left or time.monotonic() - since > LAST_BYTES_TIMEOUT_S:
                break
            client.wait_readable(pause_s)
    except StreamLost:
        pass  # it has gone before us
    client.close()


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 1)
