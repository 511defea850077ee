"""Runs the dials of one route, for waiting clients and for refills, and delivers their outcomes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from pomagent.errors import PoolError, Recovery, RouteForbidden, TunnelError
from pomagent.gateway.failure_log import AFTER_TLS
from pomagent.gateway.tunnel import Tunnel
from pomagent.log import events
from pomagent.pool.context import PoolContext
from pomagent.pool.decisions import Concerned, Placement, client_dials, clients_concerned, placement
from pomagent.pool.state import PoolState
from pomagent.pool.warm_policy import WarmTarget
from pomagent.protocol.lifecycle import Reason
from pomagent.runtime.greenlets import Task

RETRY_AFTER_RECOVERY_S = 1.0
"""Minimum seconds between a failure on the way to the gateway and the retry that another route's success triggers."""


class Opener(Protocol):
    """Opens tunnels in two steps: ``TunnelOpener``, or a stand-in in tests. A client waits for an ``urgent`` step."""

    def secure(self, *, urgent: bool) -> Tunnel: ...
    def open(self, tunnel: Tunnel, *, urgent: bool) -> Tunnel: ...
    @property
    def token_error(self) -> TunnelError | None: ...


class DialScheduler:
    """Begins the dials that are decided on, and accounts for how they end."""

    def __init__(self, context: PoolContext, state: PoolState, opener: Opener) -> None:
        self._route_name = context.route.name
        self._credential = context.route.credential.name if context.route.credential else ""
        self._history = context.history
        self._gateway_health = context.gateway_health
        self._log = context.log
        self._clock = context.clock
        self._dice = context.dice
        self._greenlets = context.greenlets
        self._state = state
        self._opener = opener
        self._tasks: set[Task] = set()
        """The dials under way."""
        self._failed_at = 0.0
        self._trusted_elsewhere = False
        """Whether another route's success has ended a rejection here, since this route's own last success."""

    def dial_for_clients(self) -> None:
        """Begin the dials that waiting clients need. Does not block.

        A failure refuses only clients that came before its dial began, never one by an earlier outcome.
        """
        state = self._state
        if not state.waiters:
            return
        now = self._clock()
        for _ in range(client_dials(state.snapshot(now))):
            state.breaker.client_dial_began(now)
            state.dials = state.dials.with_client(1)
            state.covered_mark = mark = state.waiters.mark
            self._begin("dial for a client", partial(self._dial_for_client, mark))

    def refill(self, target: WarmTarget, count: int) -> None:
        """Begin this many refills. Does not block."""
        for _ in range(count):
            self._state.dials = self._state.dials.with_refill(1)
            self._begin("refill", partial(self._refill, target))

    def place(self, tunnel: Tunnel, *, is_refill: bool) -> None:
        """Give a new tunnel to the client that has waited longest, else keep it warm or close it. Does not block."""
        state = self._state
        if tunnel.early:
            state.warm.learn_from(tunnel)
        pool = state.snapshot(self._clock())
        place = placement(pool, is_ready=tunnel.is_ready, is_refill=is_refill)
        if place is Placement.CLIENT and (waiter := state.waiters.next()) is not None:
            waiter.set(tunnel)
        elif place is Placement.WARM:
            if tunnel.is_ready:
                self._history.policy.started_listening(pool.now)
            state.warm.put(tunnel, pool.target.max_age_s)
            self._log.debug(events.POOL_FILLED, warm=len(state.warm), target=pool.target_count)
        else:
            state.warm.discard(tunnel, Reason(place.value))

    def reset(self) -> None:
        """Forget the failures: something has changed that may cure them. Does not block."""
        breaker = self._state.breaker
        self._history.outage.forget_failures()
        failures, open_s = breaker.failure_count, breaker.open_s(self._clock())
        if breaker.reset():
            self._log_closed(failures, open_s)

    def distrust(self, error: TunnelError) -> None:
        """Close the tunnels of a rejected token, and report and back off as after a dial. Does not block."""
        self._state.last_error = error
        self._state.warm.discard_ready(Reason.STALE)
        self._failed(error.recovery)
        self._await_trust()

    def trust(self) -> None:
        """End a rejection: the gateway accepts the token again. Does not block."""
        error = self._state.last_error
        if error is not None and error.recovery is Recovery.REAUTHENTICATE:
            self._state.last_error = None
            self.reset()
            self._reconsider()

    def close(self) -> None:
        """Abort all dials. Does not block."""
        for task in self._tasks:
            task.kill()

    # --- one dial ---------------------------------------------------------------------------------------------------

    def _dial_for_client(self, mark: int) -> None:
        """Dial for waiting clients. A failure refuses those of them that came before this mark. Blocks."""
        try:
            tunnel = self._dial(self._open_for_client)
        except TunnelError as error:
            self._refuse(error, mark)
        except Exception as bug:
            self._refuse(
                PoolError(f"route {self._route_name}: a bug in pomagent ended the dial ({type(bug).__name__})"), mark
            )
            raise
        else:
            self.place(tunnel, is_refill=False)
        finally:
            self._state.dials = self._state.dials.with_client(-1)
            self._reconsider()

    def _refill(self, target: WarmTarget) -> None:
        """Dial for the pool. A failure only delays the next refill. Blocks."""
        try:
            tunnel = self._dial(partial(self._open_for_pool, target))
        except TunnelError:
            pass  # the opener has logged it, and the breaker has counted it
        else:
            self.place(tunnel, is_refill=True)
        finally:
            self._state.dials = self._state.dials.with_refill(-1)
            self._reconsider()

    def _reconsider(self) -> None:
        """Use the room that an ended dial has made."""
        self.dial_for_clients()
        self._state.wakeup.ring()

    def _open_for_client(self) -> Tunnel:
        secured = self._state.warm.take_secured() or self._opener.secure(urgent=True)
        return self._opener.open(secured, urgent=True)

    def _open_for_pool(self, target: WarmTarget) -> Tunnel:
        if target.level != "tunnel":
            return self._opener.secure(urgent=False)
        secured = self._state.warm.take_secured() or self._opener.secure(urgent=False)
        return self._opener.open(secured, urgent=False)

    def _dial(self, dial: Callable[[], Tunnel]) -> Tunnel:
        began = self._clock()
        try:
            tunnel = dial()
        except TunnelError as error:
            self._state.last_error = error
            self._history.failures[error.kind] += 1
            self._failed(error.recovery, getattr(error, "retry_after_s", 0.0))
            if isinstance(error, RouteForbidden):
                self._denied()
            if error.recovery is Recovery.REAUTHENTICATE:
                self._await_trust()
            if error.phase not in AFTER_TLS:
                self._gateway_health.when_back(self._retry_soon)
            raise
        except Exception:
            self._failed(Recovery.RETRY)  # a bug must not repeat in a tight loop
            raise
        self._state.demand.dial_took(self._clock() - began)
        self._succeeded(tunnel, began)
        return tunnel

    # --- its outcome ------------------------------------------------------------------------------------------------

    def _denied(self) -> None:
        """Close the warm tunnels of a route that the gateway's policy denies, before the next client comes."""
        self._state.denied_at, self._state.is_denied = self._clock(), True
        self._state.warm.discard_ready(Reason.REFUSED)

    def _succeeded(self, tunnel: Tunnel, began: float) -> None:
        state = self._state
        if tunnel.is_ready:
            state.has_succeeded = True
            if began < state.denied_at:
                return  # it may have been accepted before the denial
            state.is_denied = False
            self._trusted_elsewhere = False
            self._history.outage.succeeded(self._clock())
        elif state.last_error is not None and state.last_error.phase in AFTER_TLS:
            return  # TLS alone proves nothing about the CONNECT
        state.last_error = None
        now = self._clock()
        failures, open_s = state.breaker.failure_count, state.breaker.open_s(now)
        if state.breaker.succeeded(now):
            self._log_closed(failures, open_s)
        if tunnel.is_ready:
            self._gateway_health.accepted(self._credential)

    def _await_trust(self) -> None:
        """Retry once when the gateway accepts the credential for another route.

        Once, because this route may need another credential, such as one of its own identity provider.
        """
        if not self._trusted_elsewhere:
            self._gateway_health.when_accepted(self._credential, self._route_name, self._trust_other_route)

    def _trust_other_route(self) -> None:
        self._trusted_elsewhere = True
        self.trust()

    def _failed(self, recovery: Recovery, at_least_s: float = 0.0) -> None:
        now = self._failed_at = self._clock()
        breaker = self._state.breaker
        self._history.outage.failed(now, may_pass=recovery is Recovery.RETRY)
        if breaker.failed(recovery, now, at_least_s):
            self._log.warning(
                events.BREAKER_OPENED, failures=breaker.failure_count, error=str(self._state.last_error or ""),
                retry_in_ms=round((breaker.retry_at - now) * 1000),
            )  # fmt: skip

    def _log_closed(self, failures: int, open_s: float) -> None:
        self._log.info(events.BREAKER_CLOSED, failures=failures, open_ms=round(open_s * 1000))

    def _retry_soon(self, spread_s: float) -> None:
        """Retry because the gateway accepts other routes again, but not at once: it may accept only some."""
        spread_at = self._clock() + self._dice(0.0, spread_s)
        self._state.breaker.hurry(max(spread_at, self._failed_at + RETRY_AFTER_RECOVERY_S))
        self._state.wakeup.ring()

    def _refuse(self, error: Exception, mark: int) -> None:
        """Refuse the waiting clients that a failed dial concerns."""
        waiters = self._state.waiters
        may_pass = isinstance(error, TunnelError) and error.recovery is Recovery.RETRY
        concerned = clients_concerned(self._state.snapshot(self._clock()), may_pass=may_pass)
        if concerned is Concerned.ALL:
            refused = waiters.before(mark)
        elif concerned is Concerned.OLDEST and (oldest := waiters.next_before(mark)) is not None:
            refused = [oldest]
        else:
            refused = []
        for waiter in refused:
            waiter.set_exception(error)

    def _begin(self, name: str, run: Callable[[], None]) -> None:
        self._tasks.add(self._greenlets.begin(run, f"pool {self._route_name}: {name}", self._tasks.discard))
