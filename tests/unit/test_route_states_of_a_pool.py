"""The state of a route after successes and failures of its pool."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from pomagent.errors import DestinationDown, RoutePaused, TokenMissing
from pomagent.forwarder import Forwarder
from pomagent.pool.backoff import FAST_TRIES
from pomagent.pool.demand import MAX_REFILL_DELAY_S
from pomagent.pool.status import SHORT_FOR_S
from pomagent.route_state import is_ready
from pomagent.runtime.deadline import Deadline
from pomagent.sessions.session_limit import SessionLimit
from tests.fakes.pool import DENIED, DOWN, NAMED, ROUTE, Scene

MISSING = TokenMissing("not logged in", phase="token", **NAMED)
NOWHERE = DestinationDown("503", status=503, **NAMED)


class Watched(Scene):
    """A scene with a forwarder that reports the state of its route."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(replace(ROUTE, **changes), frozenset({"secure", "open"}))
        context: Any = SimpleNamespace(clock=self.clock, session_limit=SessionLimit(2000, "agent.max_sessions"))
        self.shared = context.session_limit
        self.forwarder = Forwarder(
            self.route, lambda *_: self.pool, context, None, self.fake_log.log, count(1), generation=1
        )

    @property
    def state(self) -> str:
        return self.forwarder.state

    def fail_all(self, error: Exception) -> None:
        for _ in range(self.pending):
            self.fail(error)


@pytest.fixture
def scene() -> Iterator[Watched]:
    scene = Watched(pool_min=2)
    yield scene.start()
    scene.close()


@pytest.fixture
def filled(scene: Watched) -> Watched:
    while scene.pending:
        scene.succeed()
    return scene


def test_route_is_untried_until_a_connect_is_accepted(scene: Watched) -> None:
    assert scene.state == "untried"
    scene.pass_time(10 * SHORT_FOR_S)
    assert scene.state == "untried"


def test_route_is_up_with_the_minimum_of_tunnels(filled: Watched) -> None:
    assert filled.state == "up"


def test_pause_precedes_the_states_of_the_pool_and_a_drain_precedes_a_pause(filled: Watched) -> None:
    filled.forwarder.pause()
    assert filled.state == "paused"
    assert filled.pool.warm_count == 0
    filled.pass_time(10 * SHORT_FOR_S)
    assert (filled.state, filled.pending) == ("paused", 0)
    filled.forwarder.drain()
    assert filled.state == "draining"


def test_paused_route_leases_nothing_and_names_the_command_to_resume(filled: Watched) -> None:
    filled.forwarder.pause()
    with pytest.raises(RoutePaused, match=f"pomagent resume {filled.route.name}"):
        filled.forwarder.lease(Deadline(1.0, filled.clock))


def test_waiting_client_still_gets_a_tunnel_after_a_pause(scene: Watched) -> None:
    scene.fail_all(NOWHERE)
    waiting = scene.client()
    scene.forwarder.pause()
    while scene.pending:
        scene.succeed()
    assert waiting.get(timeout=1) is not None


def test_route_stays_up_below_the_minimum_for_the_time_of_a_dial(filled: Watched) -> None:
    filled.client()
    filled.pass_time(SHORT_FOR_S)
    assert filled.state == "up"


def test_route_is_degraded_when_it_stays_below_the_minimum(filled: Watched) -> None:
    filled.client()
    filled.pass_time(MAX_REFILL_DELAY_S)
    filled.pass_time(SHORT_FOR_S)
    filled.pass_time(0.1)
    assert filled.state == "degraded"
    while filled.pending:
        filled.succeed()
    assert filled.state == "up"


def test_failed_dials_degrade_a_route_with_tunnels_until_the_breaker_opens(filled: Watched) -> None:
    filled.client()
    filled.pass_time(0.1)
    filled.fail_all(DOWN)
    assert (filled.pool.warm_count, filled.state) == (1, "degraded")
    for _ in range(FAST_TRIES):
        filled.pass_time(1.0)
        filled.fail_all(DOWN)
    assert filled.state == "down"


def test_route_without_tunnels_is_down_after_one_failed_dial(scene: Watched) -> None:
    scene.fail_all(DOWN)
    assert scene.state == "down"


def test_route_with_tls_connections_is_down_while_its_destination_is() -> None:
    scene = Watched(warm="tls")
    scene.start()
    while scene.pending:
        scene.succeed()
    client = scene.client()
    scene.fail(NOWHERE)
    assert (client.value, scene.pool.status.is_warm, scene.state) == (NOWHERE, True, "down")
    scene.close()


def test_state_names_a_verdict_of_the_gateway(scene: Watched) -> None:
    scene.fail_all(DENIED)
    assert scene.state == "denied"


def test_session_limit_that_refuses_clients_degrades_the_route(filled: Watched) -> None:
    filled.shared.resize(0)
    filled.shared.acquire(0)
    assert (filled.state, filled.forwarder.overrun) == ("degraded", filled.shared.why_full)
    filled.shared.resize(1)
    assert (filled.state, filled.forwarder.overrun) == ("up", "")


@pytest.mark.parametrize("level", ["tunnel", "tls", "off"])
def test_route_without_a_login_is_unauthenticated_until_there_is_one(level: str) -> None:
    scene = Watched(warm=level)
    scene.opener.token_error = MISSING
    scene.start()
    assert (scene.state, is_ready(scene.forwarder.facts)) == ("unauthenticated", False)
    scene.opener.token_error = None
    assert scene.state == "untried"
    scene.close()
