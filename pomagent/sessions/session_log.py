"""Writes one session's log lines, filtered by ``log_sessions``."""

from __future__ import annotations

import random
from collections.abc import Callable

from pomagent.errors import Recovery
from pomagent.gateway.tunnel import Tunnel
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.deadline import Clock
from pomagent.sessions.counters import SessionCounts
from pomagent.sessions.ends import End
from pomagent.sessions.peer_user import PeerUser
from pomagent.sessions.relay import Relay

PROGRESS_EVERY_S = 3600.0
"""Seconds between two progress lines of a session.

This bounds what stays unlogged of a session that lasts for days if the process is killed. 2,000 sessions write 33 lines
a minute.
"""


class SessionLog:
    """Logs one session: its progress, and its end or refusal."""

    def __init__(
        self, log: Logger, user: PeerUser, counts: SessionCounts, log_sessions: Callable[[], str], generation: int,
        clock: Clock, draw: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        """``log_sessions`` returns the setting: ``all``, ``errors``, ``none``, or a share such as ``1/100``."""
        self._log = log
        self._user = user
        self._counts = counts
        self._log_sessions = log_sessions
        self._generation = generation
        self._clock = clock
        self._draw = draw()  # once, so that a session's progress and its end are either both logged or both not
        self._began = clock()
        self._next_progress_at = self._began + PROGRESS_EVERY_S
        self.is_over = False
        """Whether the session's end or refusal has been counted, and logged if the setting asks for it."""

    def since(self, at: float) -> int:
        """Return the milliseconds from the session's start to ``at``."""
        return round((at - self._began) * 1000)

    def opened(self) -> None:
        self._log.debug(events.SESSION_OPENED)

    def progress(self, tunnel: Tunnel, relay: Relay, now: float) -> None:
        """Log what a long session has transferred, if its next progress line is due."""
        if now < self._next_progress_at:
            return
        self._next_progress_at = now + PROGRESS_EVERY_S
        if self._is_logged(is_clean=True):
            self._log.info(
                events.SESSION_PROGRESS, bytes_up=relay.bytes_up, bytes_down=relay.bytes_down,
                idle_ms=round((now - relay.last_byte_at) * 1000), duration_ms=self.since(now), warm=tunnel.was_warm,
                request_id=tunnel.request_id, generation=self._generation, **self._user.fields,
            )  # fmt: skip

    def closed(self, tunnel: Tunnel, relay: Relay, end: End, waited_ms: int) -> None:
        self.is_over = True
        if not self._is_logged(is_clean=end.is_clean):
            self._counts.unlogged += 1
            return
        first = relay.first_byte_at
        self._log.info(
            events.SESSION_CLOSED, side=end.side.value, reason=end.reason, bytes_up=relay.bytes_up,
            bytes_down=relay.bytes_down, waited_ms=waited_ms, first_byte_ms=first and self.since(first),
            **tunnel.timings.fields,
            duration_ms=self.since(self._clock()), warm=tunnel.was_warm, request_id=tunnel.request_id,
            generation=self._generation, **({"cause": end.cause} if end.cause else {}), **self._user.fields,
            **self._take_unlogged(),
        )  # fmt: skip

    def refused(self, error: str, recovery: Recovery, reason: str) -> None:
        self.is_over = True
        if not self._is_logged(is_clean=False):
            self._counts.unlogged += 1
            return
        self._log.warning(
            events.SESSION_REFUSED, error=error, recovery=recovery.value, waited_ms=self.since(self._clock()),
            **({"reason": reason} if reason else {}), **self._user.fields, **self._take_unlogged(),
        )  # fmt: skip

    def _is_logged(self, *, is_clean: bool) -> bool:
        setting = self._log_sessions()
        if setting in {"all", "none"} or not is_clean:
            return setting != "none"
        return self._draw < share(setting)

    def _take_unlogged(self) -> dict[str, int]:
        """Return, and reset, how many sessions of the route ended without a line since its last one."""
        count, self._counts.unlogged = self._counts.unlogged, 0
        return {"unlogged": count} if count else {}


def share(log_sessions: str) -> float:
    """Return the share of cleanly ended sessions that is logged: 0.01 for ``1/100``, 0 for ``errors``."""
    _, _, divisor = log_sessions.partition("/")
    return 1 / int(divisor) if divisor else 0.0
