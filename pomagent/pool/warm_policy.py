"""Decides what a route keeps warm, and why: from its settings, what its server does, and its use. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from pomagent.pool.greeting import protocol_of
from pomagent.pool.presets import PRESETS, SILENT_MAX_AGE_S, preset_of, protocol_of_port
from pomagent.settings import Level, Route

LISTEN_S = 3.0
"""Seconds that a server of an unknown protocol gets to speak first."""
TLS_MAX_AGE_S = 240.0
"""Maximum age of a TLS connection without a CONNECT, unless the settings set another."""
TLS_MAX_AGE_CAP_S = 285.0
"""Upper bound of that age, for settings that ask for more: the edge closes a connection without a request after 5
minutes."""
PROMOTE_AFTER_S = 3600.0
"""Seconds from a demotion to the trial that may end it. Each further demotion doubles them."""
PROMOTE_AFTER_CAP_S = 86_400.0
"""Maximum seconds from a demotion to the trial."""
TRIAL_S = 600.0
"""Seconds of a trial, in which the route keeps one tunnel. The demotion is over if it is not closed early."""


class PolicyReason(Enum):
    """What decides the level. The log and the status show the word."""

    CONFIGURED = "configured"
    """The ``warm`` setting."""
    PROTOCOL = "protocol"
    """The ``protocol`` setting."""
    PORT = "port"
    """The destination's port."""
    PROBING = "probing"
    """Nothing yet: one tunnel listens for a greeting."""
    GREETING = "greeting"
    """The server spoke first."""
    SILENCE = "silence"
    """The server did not speak first."""
    DEMOTED = "demoted"
    """The server kept closing warm tunnels before they were used."""
    TRIAL = "trial"
    """The server used to do so. One tunnel finds out whether it still does."""
    DECAYED = "decayed"
    """No client has used the route for ``pool_decay_s``."""


@dataclass(frozen=True, slots=True)
class WarmTarget:
    """What a route keeps warm now."""

    level: Level
    reason: PolicyReason
    max_age_s: float
    max_count: int | None = None
    """Maximum tunnels, whatever the demand, or None without a limit."""

    def limit(self, count: int) -> int:
        """Return this count, or the maximum if that is lower."""
        return count if self.max_count is None else min(count, self.max_count)

    def keeps(self, *, is_ready: bool) -> bool:
        """Return whether the pool keeps a tunnel that is ready, or else a TLS connection without a CONNECT."""
        return self.level == "tunnel" or (self.level == "tls" and not is_ready)

    @property
    def may_be_leased(self) -> bool:
        """Whether a client may get a warm tunnel. One that listens for a greeting is left alone."""
        return self.reason is not PolicyReason.PROBING


UNUSED = WarmTarget("tls", PolicyReason.DECAYED, TLS_MAX_AGE_S, max_count=0)
"""The target of an unused route: nothing of its own, because all of them share a reserve."""


class WarmPolicy:
    """What is known of one route's server, and when the route was last used. It outlives the route's pools."""

    def __init__(self, route: Route, now: float) -> None:
        self._route = route
        self._protocol = route.protocol if route.protocol != "auto" else protocol_of_port(route.destination.port)
        self._source = PolicyReason.PROTOCOL if route.protocol != "auto" else PolicyReason.PORT
        self._used_at = now
        self._listening_since: float | None = None
        self._demotions = 0
        self._promote_at = math.inf
        self._trial_until = -math.inf
        self._base = self._base_target()
        """The target without demotion and decay."""

    @property
    def protocol(self) -> str:
        """What the server speaks, or ``unknown``."""
        return self._protocol or "unknown"

    @property
    def is_demoted(self) -> bool:
        return self._promote_at < math.inf

    @property
    def is_on_trial(self) -> bool:
        return self._trial_until > -math.inf

    def target(self, now: float) -> WarmTarget:
        """Return what to keep warm at this moment."""
        base = self._base
        if base.level == "off":
            return base
        if now >= self._decays_at:
            return UNUSED
        if base.level == "tunnel" and self.is_demoted:
            return WarmTarget("tls", PolicyReason.DEMOTED, self._max_age_s("tls"))
        if base.level == "tunnel" and self.is_on_trial:
            return WarmTarget("tunnel", PolicyReason.TRIAL, base.max_age_s, max_count=1)
        return base

    def next_at(self, now: float) -> float | None:
        """Return when the target may change with time, or None if it does not."""
        moments = [self._trial_until]
        if self._listening_since is not None:
            moments.append(self._listening_since + LISTEN_S)
        if now < self._decays_at:
            moments += [self._decays_at, self._promote_at]
        return min((at for at in moments if now < at < math.inf), default=None)

    def follow(self, route: Route) -> None:
        """Apply changed settings of the same route to the same server."""
        self._route = route
        self._base = self._base_target()

    # --- what happens -----------------------------------------------------------------------------------------------

    def used(self, now: float) -> None:
        """Record that a client asked for a tunnel."""
        self._used_at = now

    def started_listening(self, now: float) -> None:
        """Record that an idle tunnel is open on which the server may speak first."""
        if self._protocol is None and self._listening_since is None:
            self._listening_since = now

    def stopped_listening(self) -> None:
        """Record that no idle tunnel is open any more."""
        self._listening_since = None

    def note_greeting(self, first: bytes, after_s: float) -> bool:
        """Learn the protocol from a server's first bytes, and return whether that changes anything.

        ``after_s`` is the time since the CONNECT was accepted.
        """
        if self._route.protocol != "auto":
            return False
        protocol = protocol_of(first, after_s)
        return protocol not in (None, self._protocol) and self._learn(protocol, PolicyReason.GREETING)

    def classify_silence(self, now: float) -> bool:
        """Classify a server that has been silent for long enough. Return True once, when it does so."""
        if self._protocol is not None or self._listening_since is None or now < self._listening_since + LISTEN_S:
            return False
        return self._learn("generic", PolicyReason.SILENCE)

    def demote(self, now: float) -> float:
        """Keep only TLS connections, because the server keeps closing warm tunnels. Return for how many seconds."""
        pause_s = min(PROMOTE_AFTER_S * 2.0 ** min(self._demotions, 16), PROMOTE_AFTER_CAP_S)
        self._demotions += 1
        self._promote_at, self._trial_until = now + pause_s, -math.inf
        return pause_s

    def begin_trial(self, now: float) -> bool:
        """Begin the trial after a demotion. Return True once, when it does so. An unused route gets no trial."""
        if now < self._promote_at or now >= self._decays_at:
            return False
        self._promote_at, self._trial_until = math.inf, now + TRIAL_S
        return True

    def end_trial(self, now: float) -> bool:
        """End a trial in which no tunnel was closed early. Return True once, when it does so."""
        if not self.is_on_trial or now < self._trial_until:
            return False
        self._demotions, self._trial_until = 0, -math.inf
        return True

    # --- the base target --------------------------------------------------------------------------------------------

    def _base_target(self) -> WarmTarget:
        if self._route.warm != "auto":
            return WarmTarget(self._route.warm, PolicyReason.CONFIGURED, self._max_age_s(self._route.warm))
        if self._protocol is None:
            return WarmTarget("tunnel", PolicyReason.PROBING, self._max_age_s("tunnel"), max_count=1)
        level = preset_of(self._protocol).level
        return WarmTarget(level, self._source, self._max_age_s(level))

    @property
    def _decays_at(self) -> float:
        return self._used_at + self._route.pool_decay_s if self._route.pool_decay_s else math.inf

    def _max_age_s(self, level: Level) -> float:
        configured = self._route.pool_max_age_s
        if level != "tunnel":
            return min(configured or TLS_MAX_AGE_S, TLS_MAX_AGE_CAP_S)
        if self._source is PolicyReason.SILENCE and self._route.warm == "auto":  # with ``warm``, the operator decides
            return configured or SILENT_MAX_AGE_S
        return configured or (preset_of(self._protocol) if self._protocol else PRESETS["generic"]).max_age_s

    def _learn(self, protocol: str | None, source: PolicyReason) -> bool:
        self._protocol, self._source, self._listening_since = protocol, source, None
        self._base = self._base_target()
        return True
