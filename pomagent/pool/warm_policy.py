"""At which level a route keeps what warm, and why: by its settings, its server's habits and its use. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from pomagent.pool.greeting import protocol_of
from pomagent.pool.presets import PRESETS, SILENT_MAX_AGE_S, preset_of, protocol_of_port
from pomagent.settings import Level, Route

LISTEN_S = 3.0
"""How long a server of an unknown kind may take to speak first."""
TLS_MAX_AGE_S = 240.0
TLS_LONGEST_AGE_S = 285.0
"""The edge ends a connection without a request after 5 minutes; also where the file asks for more."""
PROMOTE_AFTER_S = 3600.0
"""A route whose warm tunnels kept ending is tried again so much later, each time after twice as long."""
PROMOTE_AFTER_MOST_S = 86_400.0
TRIAL_S = 600.0
"""With one tunnel at first: if none has ended early by then, all is well."""


class PolicyReason(Enum):
    """What decides on the level; the word is seen in the log and in the status."""

    CONFIGURED = "configured"
    """``warm`` says so."""
    PROTOCOL = "protocol"
    """``protocol`` says what the server speaks."""
    PORT = "port"
    """The destination's port does."""
    PROBING = "probing"
    """Nothing does yet: one tunnel listens."""
    GREETING = "greeting"
    """The server has spoken first."""
    SILENCE = "silence"
    """It has not."""
    DEMOTED = "demoted"
    """Warm tunnels kept ending before they were used."""
    TRIAL = "trial"
    """They did so long ago; one tunnel tries again."""
    DECAYED = "decayed"
    """Nobody has used the route for ``pool_decay_s``."""


@dataclass(frozen=True, slots=True)
class WarmTarget:
    """What a route keeps warm now."""

    level: Level
    why: PolicyReason
    max_age_s: float
    most: int | None = None
    """However many the demand asks for."""

    def within(self, depth: int) -> int:
        """A depth, or what of it may be kept."""
        return depth if self.most is None else min(depth, self.most)

    def wants(self, *, is_whole: bool) -> bool:
        """Whether the stock takes it: a whole tunnel, or a TLS connection."""
        return self.level == "tunnel" or (self.level == "tls" and not is_whole)

    @property
    def may_be_leased(self) -> bool:
        """Whether a client may have what is warm; who listens for a greeting is not disturbed."""
        return self.why is not PolicyReason.PROBING


UNUSED = WarmTarget("tls", PolicyReason.DECAYED, TLS_MAX_AGE_S, most=0)
"""By a route of its own: a thousand of them have a reserve in common."""


class WarmPolicy:
    """What is known of one route's server, and how long ago anybody wanted it; it outlives the route's pools."""

    def __init__(self, route: Route, now: float) -> None:
        self._route = route
        self._protocol = route.protocol if route.protocol != "auto" else protocol_of_port(route.destination.port)
        self._source = PolicyReason.PROTOCOL if route.protocol != "auto" else PolicyReason.PORT
        self._used_at = now
        self._listening_since: float | None = None
        self._demotions = 0
        self._promote_at = math.inf
        self._trial_until = -math.inf
        self._wished = self._wish()
        """Without demotion and decay."""

    @property
    def protocol(self) -> str:
        """What the server speaks, as far as that is known."""
        return self._protocol or "unknown"

    @property
    def is_demoted(self) -> bool:
        return self._promote_at < math.inf

    @property
    def is_on_trial(self) -> bool:
        return self._trial_until > -math.inf

    def keeping(self, now: float) -> WarmTarget:
        """What to keep warm at this moment."""
        wished = self._wished
        if wished.level == "off":
            return wished
        if now >= self._decays_at:
            return UNUSED
        if wished.level == "tunnel" and self.is_demoted:
            return WarmTarget("tls", PolicyReason.DEMOTED, self._age("tls"))
        if wished.level == "tunnel" and self.is_on_trial:
            return WarmTarget("tunnel", PolicyReason.TRIAL, wished.max_age_s, most=1)
        return wished

    def next_at(self, now: float) -> float | None:
        """When that may change by itself; None if it does not."""
        moments = [self._trial_until]
        if self._listening_since is not None:
            moments.append(self._listening_since + LISTEN_S)
        if now < self._decays_at:
            moments += [self._decays_at, self._promote_at]
        return min((at for at in moments if now < at < math.inf), default=None)

    def follow(self, route: Route) -> None:
        """Go by changed settings of the same route to the same server."""
        self._route = route
        self._wished = self._wish()

    # --- what happens -----------------------------------------------------------------------------------------------

    def used(self, now: float) -> None:
        """Somebody wants a tunnel."""
        self._used_at = now

    def listening(self, now: float) -> None:
        """A tunnel is open on which nobody speaks for us."""
        if self._protocol is None and self._listening_since is None:
            self._listening_since = now

    def stopped_listening(self) -> None:
        self._listening_since = None

    def heard(self, first: bytes, after_s: float) -> bool:
        """The server spoke first, so long after it had accepted; True if that says something new."""
        if self._route.protocol != "auto":
            return False
        protocol = protocol_of(first, after_s)
        return protocol not in (None, self._protocol) and self._learn(protocol, PolicyReason.GREETING)

    def listened(self, now: float) -> bool:
        """True once, when a server of an unknown kind has been silent for long enough."""
        if self._protocol is not None or self._listening_since is None or now < self._listening_since + LISTEN_S:
            return False
        return self._learn("generic", PolicyReason.SILENCE)

    def demote(self, now: float) -> float:
        """Warm tunnels keep ending: keep TLS connections, and return for how long."""
        pause_s = min(PROMOTE_AFTER_S * 2.0 ** min(self._demotions, 16), PROMOTE_AFTER_MOST_S)
        self._demotions += 1
        self._promote_at, self._trial_until = now + pause_s, -math.inf
        return pause_s

    def promoted(self, now: float) -> bool:
        """True once, when a demotion is over and the trial begins: not before somebody uses the route again."""
        if now < self._promote_at or now >= self._decays_at:
            return False
        self._promote_at, self._trial_until = math.inf, now + TRIAL_S
        return True

    def passed(self, now: float) -> bool:
        """True once, when the trial has gone well."""
        if not self.is_on_trial or now < self._trial_until:
            return False
        self._demotions, self._trial_until = 0, -math.inf
        return True

    # --- inside -----------------------------------------------------------------------------------------------------

    def _wish(self) -> WarmTarget:
        if self._route.warm != "auto":
            return WarmTarget(self._route.warm, PolicyReason.CONFIGURED, self._age(self._route.warm))
        if self._protocol is None:
            return WarmTarget("tunnel", PolicyReason.PROBING, self._age("tunnel"), most=1)
        level = preset_of(self._protocol).level
        return WarmTarget(level, self._source, self._age(level))

    @property
    def _decays_at(self) -> float:
        return self._used_at + self._route.pool_decay_s if self._route.pool_decay_s else math.inf

    def _age(self, level: Level) -> float:
        given = self._route.pool_max_age_s
        if level != "tunnel":
            return min(given or TLS_MAX_AGE_S, TLS_LONGEST_AGE_S)
        if self._source is PolicyReason.SILENCE and self._route.warm == "auto":  # else the operator knows the server
            return given or SILENT_MAX_AGE_S
        return given or (preset_of(self._protocol) if self._protocol else PRESETS["generic"]).max_age_s

    def _learn(self, protocol: str | None, source: PolicyReason) -> bool:
        self._protocol, self._source, self._listening_since = protocol, source, None
        self._wished = self._wish()
        return True
