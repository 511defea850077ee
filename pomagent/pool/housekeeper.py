"""Expires and refills what a pool keeps warm, and learns what time reveals of the route's server and gateway."""

from __future__ import annotations

import sys

import gevent
from gevent.pool import Group

from pomagent.gateway.failure_log import AFTER_TLS
from pomagent.log import events
from pomagent.pool import decisions
from pomagent.pool.context import PoolContext
from pomagent.pool.decisions import PoolSnapshot
from pomagent.pool.dialing import DialScheduler
from pomagent.pool.shared_reserve import Reserve
from pomagent.pool.state import PoolState
from pomagent.pool.warm_policy import PolicyReason

RESTART_S = 1.0
"""Seconds until a crashed housekeeper resumes: the same bug may recur at once, and must not in a tight loop."""


class Housekeeper:
    """One greenlet that sleeps until there is something to do. An idle route costs nothing else."""

    def __init__(
        self, context: PoolContext, state: PoolState, scheduler: DialScheduler, reserve: Reserve | None
    ) -> None:
        self._route_name = context.route.name
        self._history = context.history
        self._gateway_health = context.gateway_health
        self._clock = context.clock
        self._dice = context.dice
        self._state = state
        self._scheduler = scheduler
        self._reserve = reserve
        self._group = Group()

    def start(self) -> None:
        self._group.spawn(self._run).name = f"pool {self._route_name}: housekeeper"

    def close(self) -> None:
        self._group.kill(block=False)
        self._state.wakeup.close()

    def _run(self) -> None:
        """Work until killed. Blocks."""
        while True:
            try:
                while True:
                    self._state.wakeup.wait_until(self._work(self._clock()))
            except Exception:  # noqa: BLE001 - the crash boundary of this greenlet: a bug costs a second, not the route
                gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())
                gevent.sleep(RESTART_S)

    def _work(self, now: float) -> float | None:
        """Do what is due, and return when more is due, or None if that takes a change. Does not block."""
        state = self._state
        self._judge_early_closes(now)
        self._follow_policy(now)
        self._spread_after_mass_loss(now)
        target = self._history.policy.target(now)
        state.warm.trim(target, now)
        if target.reason is PolicyReason.DECAYED:
            self._fall_back_on_reserve()
        pool = state.snapshot(now)
        state.pacing.note_depth(now, is_short=decisions.is_below_minimum(pool))
        refill = decisions.refill(pool)
        self._scheduler.refill(target, refill.count)
        self._scheduler.dial_for_clients()
        return self._next_at(state.snapshot(now), refill.not_before)

    def _judge_early_closes(self, now: float) -> None:
        """Stop keeping tunnels warm for a server that keeps closing them."""
        policy, early_closes = self._history.policy, self._history.early_closes
        if early_closes.due_at is None or now < early_closes.due_at:
            return
        age_s, was_the_gateway = early_closes.age_s, self._gateway_health.losses.caused_by_gateway(now)
        if not was_the_gateway:
            self._history.note_close(age_s, age_s)
        if early_closes.judge(was_the_gateway=was_the_gateway, is_on_trial=policy.is_on_trial):
            retry_in_s = policy.demote(now)
            self._history.log_policy(
                events.ROUTE_DEMOTED, ended_after_ms=round(age_s * 1000), retry_in_ms=round(retry_in_s * 1000)
            )

    def _follow_policy(self, now: float) -> None:
        """Log the changes that the policy makes with time."""
        policy = self._history.policy
        if policy.classify_silence(now):
            self._history.log_policy(events.ROUTE_CLASSIFIED)
        if policy.begin_trial(now) or policy.end_trial(now):
            self._history.log_policy(events.ROUTE_PROMOTED)

    def _spread_after_mass_loss(self, now: float) -> None:
        """Delay refills at random if the gateway lost many tunnels at once, so that its routes do not dial together."""
        pacing = self._state.pacing
        if pacing.is_review_due(now) and (spread_s := self._gateway_health.losses.spread_s(now)):
            pacing.delay_until(now + self._dice(0.0, spread_s))

    def _fall_back_on_reserve(self) -> None:
        """Share the gateway's reserve, which notices for the unused route when the gateway fails and recovers."""
        state = self._state
        if self._reserve is None or state.is_draining:
            return
        self._reserve.join(state)
        if state.last_error is not None and state.last_error.phase not in AFTER_TLS:
            state.last_error = None
            self._scheduler.reset()

    def _next_at(self, pool: PoolSnapshot, refill_at: float | None) -> float | None:
        """Return when something is due unless a change makes it due earlier."""
        history, state = self._history, self._state
        moments = (
            refill_at, state.pacing.review_at, decisions.shared_dial_at(pool), history.early_closes.due_at,
            history.policy.next_at(pool.now), state.warm.next_expiry(),
        )  # fmt: skip
        return min((at for at in moments if at is not None), default=None)
