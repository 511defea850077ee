"""Each fact that decides a route's state, and their order of precedence."""

from __future__ import annotations

import pytest

from pomagent.errors import CredentialRejected, DestinationDown, GatewayUnreachable, RouteForbidden, TokenMissing
from pomagent.route_state import RouteFacts, State, is_ready, state_of

NAMED = {"gateway": "gateway.example.com:443", "destination": "redis.example.com:6379"}
UNREACHABLE = GatewayUnreachable("connection refused", phase="tcp", **NAMED)
DESTINATION_DOWN = DestinationDown("503", status=503, **NAMED)
REJECTED = CredentialRejected("401", status=401, **NAMED)
MISSING = TokenMissing("no token", phase="connect", **NAMED)
FORBIDDEN = RouteForbidden("403", status=403, **NAMED)


@pytest.mark.parametrize(
    ("expected", "facts"),
    [
        ("untried", RouteFacts()),
        ("untried", RouteFacts(is_short=True)),
        ("up", RouteFacts(has_succeeded=True)),
        ("degraded", RouteFacts(has_succeeded=True, is_short=True)),
        ("degraded", RouteFacts(has_succeeded=True, is_overrun=True)),
        ("degraded", RouteFacts(is_overrun=True)),
        ("degraded", RouteFacts(error=UNREACHABLE, still_serves=True)),
        ("down", RouteFacts(error=UNREACHABLE, still_serves=True, is_breaker_closed=False)),
        ("down", RouteFacts(error=UNREACHABLE)),
        ("down", RouteFacts(error=DESTINATION_DOWN, has_succeeded=True, is_overrun=True)),
        ("unauthenticated", RouteFacts(error=REJECTED, has_succeeded=True, still_serves=True)),
        ("unauthenticated", RouteFacts(error=MISSING)),
        ("denied", RouteFacts(error=FORBIDDEN, is_breaker_closed=False)),
        ("paused", RouteFacts(is_paused=True, error=FORBIDDEN)),
        ("quarantined", RouteFacts(is_bound=False)),
        ("disabled", RouteFacts(is_enabled=False, is_bound=False)),
        ("draining", RouteFacts(is_draining=True, is_paused=True, error=UNREACHABLE)),
    ],
)
def test_state_follows_from_the_first_fact_that_applies(expected: State, facts: RouteFacts) -> None:
    assert state_of(facts) == expected


@pytest.mark.parametrize(
    ("expected", "facts"),
    [
        (True, RouteFacts(has_succeeded=True)),
        (True, RouteFacts(has_succeeded=True, is_short=True)),
        (False, RouteFacts(has_succeeded=True, is_overrun=True)),
        (False, RouteFacts()),
        (True, RouteFacts(is_warm=True)),
        (True, RouteFacts(keeps_warm=False)),
        (False, RouteFacts(keeps_warm=False, is_overrun=True)),
        (False, RouteFacts(keeps_warm=False, error=UNREACHABLE)),
        (False, RouteFacts(is_warm=True, is_paused=True)),
        (False, RouteFacts(is_warm=True, is_draining=True)),
        (False, RouteFacts(keeps_warm=False, is_bound=False)),
        (False, RouteFacts(keeps_warm=False, is_enabled=False, is_bound=False)),
    ],
)
def test_a_route_is_ready_if_the_next_client_may_expect_to_be_served(expected: bool, facts: RouteFacts) -> None:
    assert is_ready(facts) is expected
