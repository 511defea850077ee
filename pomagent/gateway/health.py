"""Observes one gateway for all its routes: losses, certificate and clock. Each fault is logged once."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping

import gevent
from gevent.pool import Group

from pomagent.credentials.refresh_schedule import WARN_BEFORE_S, Life, warning_step
from pomagent.gateway import clock_offset
from pomagent.gateway.counters import GatewayCounts
from pomagent.gateway.mass_loss import REFILLS_PER_S, Losses
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.deadline import Clock


class GatewayHealth:
    """The health of one gateway's address, shared by all its routes."""

    def __init__(
        self,
        gateway: str,
        log: Logger,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
        pause: Callable[[float], object] = gevent.sleep,
    ) -> None:
        self.losses = Losses()
        self.counts = GatewayCounts()
        self.is_reachable: bool | None = None
        """Whether the last handshake succeeded. None before the first."""
        self._gateway = gateway
        self._log = log
        self._clock = clock
        self._wall_clock = wall_clock
        self._pause = pause
        self._group = Group()
        self._waiting: dict[Callable[[float], None], None] = {}
        self._rejected: dict[tuple[str, str], Callable[[], None]] = {}
        """What to call for each credential and route once the gateway accepts the credential again."""
        self._expiry_step = 0
        self._not_after = ""
        self.certificate_expires_at: float | None = None
        """Seconds since the epoch, by the last dial. None before, and for a certificate that is not verified."""
        self.clock_offset_s: float | None = None
        """Gateway clock minus local clock, in seconds, by the last answer to a CONNECT. None before."""

    def lost(self, route: str, age_s: float) -> None:
        """Record a warm tunnel, or TLS connection, that ended by itself. Does not block."""
        self.losses.note(route, age_s, self._clock())
        if not self._group:
            self._group.spawn(self._log_losses).name = f"gateway {self._gateway}: losses"

    def when_back(self, call: Callable[[float], None]) -> None:
        """Record a dial that failed before the gateway was secured, and call ``call`` once the gateway is reachable.

        Its argument is the seconds over which to spread new dials.
        """
        self.losses.refused(self._clock())
        self.is_reachable = False
        self._waiting[call] = None

    def reached(self) -> None:
        """Record a successful handshake, and run the calls that wait for it. Does not block."""
        self.is_reachable = True
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            call(len(waiting) / REFILLS_PER_S)

    def when_accepted(self, credential: str, route: str, call: Callable[[], None]) -> None:
        """Call once when the gateway next accepts a CONNECT with this credential. One call for each route."""
        self._rejected[credential, route] = call

    def accepted(self, credential: str) -> None:
        """Notify the routes of a credential that the gateway has accepted it. Does not block."""
        if not self._rejected:
            return
        for key in [key for key in self._rejected if key[0] == credential]:
            self._rejected.pop(key)()

    def note_certificate(self, certificate: Mapping[str, object]) -> None:
        """Log a certificate, as ``ssl`` decodes it, once for each step towards its expiry."""
        until = certificate.get("notAfter")
        if not isinstance(until, str):
            return
        if until != self._not_after:  # parsing it costs as much as the rest of this function
            self._not_after, self._expiry_step = until, 0
            self.certificate_expires_at = float(ssl.cert_time_to_seconds(until))
        expires_at = self.certificate_expires_at or 0.0
        now = self._wall_clock()
        step = warning_step(Life(expires_at=expires_at), now)
        if step > self._expiry_step:
            left_ms = round((expires_at - now) * 1000)
            write = self._log.error if step == len(WARN_BEFORE_S) else self._log.warning
            write(events.CERTIFICATE_EXPIRING, gateway=self._gateway, expires_in_ms=left_ms)
        self._expiry_step = step

    def downgraded(self, name: str) -> None:
        """Log that the gateway does not offer the transport that its table ``name`` asks for."""
        self._log.warning(
            events.TRANSPORT_DOWNGRADED, gateway=self._gateway, table=name, wanted="http2", used="http1",
            why="the gateway does not offer h2 by ALPN, so that half-closes are not carried",
        )  # fmt: skip

    def note_date(self, date: str) -> None:
        """Compare clocks by an answer's Date header, and log once when they begin to differ."""
        offset = clock_offset.offset_s(date, self._wall_clock())
        if offset is None:
            return
        is_off, was_off = clock_offset.is_off(offset), clock_offset.is_off(self.clock_offset_s)
        self.clock_offset_s = offset
        if is_off and not was_off:
            self._log.warning(
                events.CLOCK_DRIFTED, gateway=self._gateway, offset_ms=round(offset * 1000),
                error=clock_offset.problem(offset),
            )  # fmt: skip

    def close(self) -> None:
        """Stop observing. Does not block."""
        self._group.kill(block=False)

    def _log_losses(self) -> None:
        """Wait until the burst is over, and log it. Blocks."""
        while (burst := self.losses.burst) is not None:
            pause_s = burst.over_at - self._clock()
            if pause_s > 0:
                self._pause(pause_s)
                if burst is self.losses.burst and burst.over_at > self._clock():
                    continue
            if burst.is_many:
                self._log.warning(
                    events.TUNNELS_LOST, gateway=self._gateway, count=burst.count, routes=len(burst.routes),
                    within_ms=burst.within_ms,
                )  # fmt: skip
            if burst is self.losses.burst:
                return
