"""What holds for a pool under any interleaving of clients, dials, closes, clock steps, greetings and edits."""

from dataclasses import replace
from typing import Any

import gevent
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pomagent.errors import GatewayUnreachable, RouteForbidden, TunnelError
from pomagent.pool import decisions
from pomagent.pool.breaker import SHARE_S
from pomagent.pool.dial_budget import MAX_DIALS_PER_ROUTE, MAX_REFILLS_PER_ROUTE
from pomagent.pool.refill_pacing import LOSS_REVIEW_S
from pomagent.protocol.lifecycle import State
from tests.fakes.greenlets import settle
from tests.fakes.pool import NAMED, ROUTE, Scene
from tests.fakes.tunnels import FakeTunnel

STEPS_S = [0.0, 0.02, LOSS_REVIEW_S, 0.5, SHARE_S, 3.0, 10.0, 50.0, 300.0, 4000.0]
BOUNDS = [(0, 1), (1, 1), (1, 4), (2, 3), (3, 12)]
LEVELS = ["tunnel"] * 4 + ["auto", "tls"] * 2 + ["off"]
"""Levels with more ways to fail are drawn more often."""
OFTEN = st.sampled_from([True, True, True, False])
GREETING = b"SSH-2.0-OpenSSH_9.6\r\n"
LONG_ENOUGH_S = 400.0
"""Longer than any wait after failures."""


def down() -> TunnelError:
    return GatewayUnreachable("connection refused", phase="tcp", **NAMED)


def denied() -> TunnelError:
    return RouteForbidden("refused with 403", status=403, **NAMED)


class PoolMachine(RuleBasedStateMachine):
    """A real pool. The machine controls its dials, tunnels and clock."""

    scene: Scene

    def __init__(self) -> None:
        super().__init__()
        self.came_after: dict[gevent.Greenlet, int] = {}
        """The number of dials that had begun when each client came."""
        self.served: set[int] = set()
        self.began: dict[TunnelError, int] = {}
        """The dial that each failure is the outcome of."""

    @initialize(
        bounds=st.sampled_from(BOUNDS), warm=st.sampled_from(LEVELS),
        held=st.sampled_from([frozenset({"open"}), frozenset({"secure", "open"})]),
    )  # fmt: skip
    def an_agent_starts(self, bounds: tuple[int, int], warm: Any, held: frozenset[str]) -> None:
        unlisted = replace(ROUTE.destination, port=4711)
        minimum, maximum = bounds
        route = replace(
            ROUTE, protocol="auto", warm=warm, destination=unlisted, pool_min=minimum, pool_max=maximum
        )  # fmt: skip
        self.scene = Scene(route, held).start()

    def teardown(self) -> None:
        self.scene.close()
        assert all(tunnel.state in (State.ACTIVE, State.CLOSED) for tunnel in self.scene.tunnels)
        assert all(client.ready() for client in self.scene.clients)

    # What may happen.

    @rule(count=st.integers(1, 20))
    def clients_come(self, count: int) -> None:
        for _ in range(count):
            begun = len(self.scene.opener.dials)
            self.came_after[self.scene.client()] = begun

    @rule(count=st.integers(1, 20))
    def clients_come_and_leave(self, count: int) -> None:
        gevent.killall([self.scene.client() for _ in range(count)])
        settle()

    @precondition(lambda self: self.waiting())
    @rule(data=st.data(), all_of_them=st.booleans())
    def clients_leave(self, data: st.DataObject, all_of_them: bool) -> None:
        waiting = self.waiting()
        for client in waiting if all_of_them else [data.draw(st.sampled_from(waiting))]:
            client.kill()
            del self.came_after[client]
        settle()

    @precondition(lambda self: self.scene.pending)
    @rule(data=st.data(), took_s=st.sampled_from([0.0, 0.05, 10.0]), all_of_them=OFTEN)
    def dials_succeed(self, data: st.DataObject, took_s: float, all_of_them: bool) -> None:
        self.scene.clock.advance(took_s)
        pending = self.scene.opener.pending
        for dial in pending if all_of_them else [data.draw(st.sampled_from(pending))]:
            dial.succeed()
        settle()

    @precondition(lambda self: self.scene.pending)
    @rule(data=st.data(), is_denied=st.booleans(), all_of_them=st.booleans())
    def dials_fail(self, data: st.DataObject, is_denied: bool, all_of_them: bool) -> None:
        pending = self.scene.opener.pending
        for dial in pending if all_of_them else [data.draw(st.sampled_from(pending))]:
            error = denied() if is_denied else down()
            steps = [step for step in self.scene.opener.dials if step.tunnel is dial.tunnel and step.urgent]
            self.began[error] = self.scene.opener.dials.index(steps[0] if steps else dial)
            dial.fail(error)
        settle()

    @precondition(lambda self: self.scene.warm())
    @rule(data=st.data(), unnoticed=st.booleans())
    def a_warm_tunnel_ends(self, data: st.DataObject, unnoticed: bool) -> None:
        tunnel = data.draw(st.sampled_from(self.scene.warm()))
        if unnoticed:
            tunnel.die_unnoticed()
        else:
            tunnel.end()
        settle()

    @rule()
    def the_gateway_restarts(self) -> None:
        for tunnel in self.scene.warm():
            tunnel.end()
        settle()

    @precondition(lambda self: self.scene.warm())
    @rule(data=st.data())
    def the_server_greets(self, data: st.DataObject) -> None:
        tunnel = data.draw(st.sampled_from(self.scene.warm()))
        if tunnel.is_ready:
            tunnel.say(GREETING)
        settle()

    @rule(seconds=st.sampled_from(STEPS_S))
    def time_passes(self, seconds: float) -> None:
        self.scene.pass_time(seconds)

    @rule(bounds=st.sampled_from(BOUNDS), warm=st.sampled_from(LEVELS))
    def the_file_is_edited(self, bounds: tuple[int, int], warm: Any) -> None:
        minimum, maximum = bounds
        self.scene.reconfigure(pool_min=minimum, pool_max=maximum, warm=warm)

    @rule()
    def the_operator_asks_for_a_retry(self) -> None:
        self.scene.pool.retry_now()
        settle()

    @rule()
    def all_is_well_for_a_while(self) -> None:
        """Dials succeed at once and nothing closes: no client waits, and the pool reaches its target."""
        for seconds in (0.02, 1.0, 3.0, LONG_ENOUGH_S, 1.0):
            self.succeed_all()
            self.scene.pass_time(seconds)
        self.succeed_all()
        pool = self.scene.pool
        assert not self.waiting()
        assert pool._state.warm.count_at_level(pool.warm_target) >= pool.target_count
        if pool.warm_target.level != "off" and pool.warm_target.max_count is None:
            assert pool.warm_count >= self.scene.route.pool_min

    def succeed_all(self) -> None:
        while pending := self.scene.opener.pending:
            for dial in pending:
                dial.succeed()
            settle()
            self.never_more_warm_than_the_most()

    # What always holds.

    @invariant()
    def never_more_warm_than_the_most(self) -> None:
        assert self.scene.pool.warm_count <= max(self.scene.route.pool_min, self.scene.route.pool_max)
        assert len(self.scene.warm()) == self.scene.pool.warm_count

    @invariant()
    def no_tunnel_is_used_twice_and_no_failure_is_older_than_its_client(self) -> None:
        for client in [client for client in self.came_after if client.ready()]:
            came_after = self.came_after.pop(client)
            if isinstance(client.value, TunnelError):
                assert self.began[client.value] >= came_after, "refused by a dial that began before the client came"
            if isinstance(client.value, FakeTunnel):
                assert client.value.state is State.ACTIVE
                assert id(client.value) not in self.served
                self.served.add(id(client.value))

    @invariant()
    def no_waiter_is_lost(self) -> None:
        """Each waiting client is queued, and its dial is under way or may begin within a second."""
        pool, waiting = self.scene.pool, self.waiting()
        assert pool.waiting_count == len(waiting)
        if waiting and not pool.status.dials["clients"]:
            shared_dial_at = decisions.shared_dial_at(pool._state.snapshot(self.scene.clock.now))
            assert shared_dial_at is not None
            assert shared_dial_at <= self.scene.clock.now + SHARE_S

    @invariant()
    def the_caps_are_kept(self) -> None:
        dialling = self.scene.pool.status.dials
        assert dialling["clients"] + dialling["stock"] <= MAX_DIALS_PER_ROUTE
        assert dialling["stock"] <= MAX_REFILLS_PER_ROUTE

    @invariant()
    def missing_tunnels_are_dialled_or_delayed_for_a_bounded_time(self) -> None:
        pool = self.scene.pool
        missing = pool.target_count - pool._state.warm.count_at_level(pool.warm_target)
        if missing > 0 and not any(pool.status.dials.values()):
            begin = decisions.refill(pool._state.snapshot(self.scene.clock.now)).not_before
            assert begin is not None
            assert begin <= self.scene.clock.now + LONG_ENOUGH_S

    def waiting(self) -> list[gevent.Greenlet]:
        return [client for client in self.came_after if not client.ready()]


TestAnyHistory = PoolMachine.TestCase
TestAnyHistory.settings = settings(
    max_examples=40, stateful_step_count=25,
    suppress_health_check=[HealthCheck.too_slow],  # each step runs greenlets, slowly on a busy machine
)  # fmt: skip
