"""What the log has of one session: that it goes on, how it ended, or why it was refused; as much as is wished."""

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
"""Of a session that lasts for days no more is untold if the process is killed; 2,000 sessions are 33 lines a minute."""


class SessionLog:
    """The lines of one session, and the count of those that nobody wished for."""

    def __init__(
        self, log: Logger, caller: PeerUser, counts: SessionCounts, wish: Callable[[], str], generation: int,
        clock: Clock, draw: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        """``wish`` is ``log_sessions``: ``all``, ``errors``, ``none``, or a share such as ``1/100``."""
        self._log = log
        self._caller = caller
        self._counts = counts
        self._wish = wish
        self._generation = generation
        self._clock = clock
        self._draw = draw()  # once: the progress of a session and its end are both told, or neither
        self._began = clock()
        self._next_progress_at = self._began + PROGRESS_EVERY_S
        self.is_over = False
        """Whether its end has been counted, and told if that was wished."""

    def since(self, at: float) -> int:
        """Milliseconds from the session's beginning to then."""
        return round((at - self._began) * 1000)

    def opened(self) -> None:
        self._log.debug(events.SESSION_OPENED)

    def progress(self, tunnel: Tunnel, relay: Relay, now: float) -> None:
        """Tell what a long session has carried so far, if it is time for that again."""
        if now < self._next_progress_at:
            return
        self._next_progress_at = now + PROGRESS_EVERY_S
        if self._is_wished(is_clean=True):
            self._log.info(
                events.SESSION_PROGRESS, bytes_up=relay.bytes_up, bytes_down=relay.bytes_down,
                idle_ms=round((now - relay.last_byte_at) * 1000), duration_ms=self.since(now), warm=tunnel.was_warm,
                request_id=tunnel.request_id, generation=self._generation, **self._caller.fields,
            )  # fmt: skip

    def closed(self, tunnel: Tunnel, relay: Relay, end: End, waited_ms: int) -> None:
        self.is_over = True
        if not self._is_wished(is_clean=end.is_clean):
            self._counts.unlogged += 1
            return
        first = relay.first_byte_at
        self._log.info(
            events.SESSION_CLOSED, side=end.side.value, reason=end.reason, bytes_up=relay.bytes_up,
            bytes_down=relay.bytes_down, waited_ms=waited_ms, first_byte_ms=first and self.since(first),
            **tunnel.timings.fields,
            duration_ms=self.since(self._clock()), warm=tunnel.was_warm, request_id=tunnel.request_id,
            generation=self._generation, **({"cause": end.cause} if end.cause else {}), **self._caller.fields,
            **self._left_out(),
        )  # fmt: skip

    def refused(self, error: str, recovery: Recovery, reason: str) -> None:
        self.is_over = True
        if not self._is_wished(is_clean=False):
            self._counts.unlogged += 1
            return
        self._log.warning(
            events.SESSION_REFUSED, error=error, recovery=recovery.value, waited_ms=self.since(self._clock()),
            **({"reason": reason} if reason else {}), **self._caller.fields, **self._left_out(),
        )  # fmt: skip

    def _is_wished(self, *, is_clean: bool) -> bool:
        wish = self._wish()
        if wish in {"all", "none"} or not is_clean:
            return wish != "none"
        return self._draw < share(wish)

    def _left_out(self) -> dict[str, int]:
        """How many sessions of the route have ended without a line since its last one; told once."""
        count, self._counts.unlogged = self._counts.unlogged, 0
        return {"unlogged": count} if count else {}


def share(wish: str) -> float:
    """Of the sessions that end well, how many get lines: a hundredth for ``1/100``; none for ``errors``."""
    _, _, of = wish.partition("/")
    return 1 / int(of) if of else 0.0
