"""What one gateway does to everybody who depends on it: losses, its certificate, its clock, each told once."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping

import gevent
from gevent.pool import Group

from pomagent.credentials.expiry import WARN_BEFORE_S, Life, warning_step
from pomagent.gateway import clock_offset
from pomagent.gateway.counters import GatewayCounts
from pomagent.gateway.mass_loss import REFILLS_PER_S, Losses
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.deadline import Clock


class GatewayHealth:
    """Shared by all routes of a gateway."""

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
        """Whether the last handshake came to its end; None before the first."""
        self._gateway = gateway
        self._log = log
        self._clock = clock
        self._wall_clock = wall_clock
        self._pause = pause
        self._group = Group()
        self._waiting: dict[Callable[[float], None], None] = {}
        self._step = 0
        self._not_after = ""
        self.certificate_expires_at: float | None = None
        """In seconds since the epoch, as seen by the last dial; None before, and where it is not verified."""
        self.clock_offset_s: float | None = None
        """What its clock is ahead of ours, by its last answer to a CONNECT; None before."""

    def lost(self, route: str, age_s: float) -> None:
        """A warm tunnel, or TLS connection, ended by itself. Does not block."""
        self.losses.note(route, age_s, self._clock())
        if not self._group:
            self._group.spawn(self._tell_losses).name = f"gateway {self._gateway}: losses"

    def when_back(self, call: Callable[[float], None]) -> None:
        """A dial failed on the way to the gateway: call once, when it has next let anybody in.

        With the seconds over which to spread what follows.
        """
        self.losses.refused(self._clock())
        self.is_reachable = False
        self._waiting[call] = None

    def answered(self) -> None:
        """A handshake has succeeded: whoever waits because of the gateway need not wait on. Does not block."""
        self.is_reachable = True
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            call(len(waiting) / REFILLS_PER_S)

    def saw(self, certificate: Mapping[str, object]) -> None:
        """A dial was shown this certificate, in Python's words: warn once for each step towards its end."""
        until = certificate.get("notAfter")
        if not isinstance(until, str):
            return
        if until != self._not_after:  # to parse it costs as much as the rest of a look
            self._not_after, self._step = until, 0
            self.certificate_expires_at = float(ssl.cert_time_to_seconds(until))
        expires_at = self.certificate_expires_at or 0.0
        now = self._wall_clock()
        step = warning_step(Life(expires_at=expires_at), now)
        if step > self._step:
            left_ms = round((expires_at - now) * 1000)
            tell = self._log.error if step == len(WARN_BEFORE_S) else self._log.warning
            tell(events.CERTIFICATE_EXPIRING, gateway=self._gateway, expires_in_ms=left_ms)
        self._step = step

    def downgraded(self, name: str) -> None:
        """The gateway does not speak what its table ``name`` asks for."""
        self._log.warning(
            events.TRANSPORT_DOWNGRADED, gateway=self._gateway, table=name, wanted="http2", used="http1",
            why="it does not offer h2 by ALPN, so that half-closes are not carried",
        )  # fmt: skip

    def told_time(self, date: str) -> None:
        """It answered with this Date: warn once if a clock is off, and again only after they have agreed."""
        offset = clock_offset.offset_s(date, self._wall_clock())
        if offset is None:
            return
        is_off, was_off = clock_offset.is_off(offset), clock_offset.is_off(self.clock_offset_s)
        self.clock_offset_s = offset
        if is_off and not was_off:
            self._log.warning(
                events.CLOCK_DRIFTED, gateway=self._gateway, offset_ms=round(offset * 1000),
                error=clock_offset.said(offset),
            )  # fmt: skip

    def close(self) -> None:
        self._group.kill(block=False)

    def _tell_losses(self) -> None:
        """Wait until the burst is over; say what it came to."""
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
