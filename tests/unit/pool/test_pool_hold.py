"""Clients of a route that has just served are held while its dials fail."""

from __future__ import annotations

import pytest

from pomagent.errors import (
    CredentialRejected,
    DestinationDown,
    GatewayMisbehaved,
    GatewayOverloaded,
    GatewayTimedOut,
    GatewayUntrusted,
    RouteUnknown,
)
from pomagent.pool.breaker import SHARE_S
from pomagent.protocol.lifecycle import Reason
from pomagent.settings import Route
from tests.fakes.pool import DENIED, DOWN, NAMED

HOLD_S = 8.0
PASSES = [
    DOWN,
    GatewayTimedOut("no answer", phase="tls", **NAMED),
    GatewayMisbehaved("closed the connection", phase="connect", **NAMED),
    DestinationDown("refused with 503", status=503, **NAMED),
    GatewayOverloaded("refused with 502", status=502, **NAMED),
]
VERDICTS = [
    CredentialRejected("refused with 401", status=401, **NAMED),
    DENIED,
    RouteUnknown("refused with 404", status=404, **NAMED),
    GatewayUntrusted("certificate has expired", phase="tls", **NAMED),
]


@pytest.fixture
def served(make):
    """A route without warm tunnels that has served one client."""
    scene = make(pool_min=0, warm="off", hold_s=HOLD_S).start()
    scene.client()
    scene.succeed()
    return scene


def test_default_holds_clients() -> None:
    assert Route.__dataclass_fields__["hold_s"].default == HOLD_S


@pytest.mark.parametrize("error", PASSES)
def test_held_client_is_served_by_the_first_dial_that_succeeds(served, error):
    client = served.client()
    served.fail(error)
    assert not client.ready()
    assert served.pending == 0
    served.pass_time(SHARE_S)
    tunnel = served.succeed()
    assert client.value is tunnel


@pytest.mark.parametrize("error", VERDICTS)
def test_failure_that_waiting_cannot_mend_refuses_at_once(served, error):
    client = served.client()
    served.fail(error)
    assert client.value is error


def test_verdict_during_an_outage_refuses_the_clients_that_are_held(served):
    clients = [served.client() for _ in range(3)]
    served.fail()
    served.fail()
    served.fail()
    served.pass_time(SHARE_S)
    served.fail(DENIED)
    assert [client.value for client in clients] == [DENIED] * 3


def test_held_clients_share_one_dial_a_second(served):
    first = served.client()
    served.fail()
    clients = [served.client() for _ in range(9)]
    for _ in range(3):
        served.pass_time(SHARE_S)
        assert served.pending == 1
        served.fail()
    assert not any(client.ready() for client in [first, *clients])


def test_clients_are_refused_once_the_hold_is_over(served):
    first = served.client()
    served.fail()
    for _ in range(7):
        served.pass_time(SHARE_S)
        served.fail()
        assert not first.ready()
    served.pass_time(SHARE_S)
    served.fail()
    assert first.value is DOWN
    late = served.client()
    served.pass_time(SHARE_S)
    served.fail()
    assert late.value is DOWN


def test_no_client_is_held_while_that_is_off(make):
    scene = make(pool_min=0, warm="off", hold_s=0.0).start()
    scene.client()
    scene.succeed()
    client = scene.client()
    scene.fail()
    assert client.value is DOWN


def test_client_leaves_a_hold_at_its_own_timeout(served):
    client = served.client(budget_s=0.0)
    client.join()
    assert "no tunnel was ready" in str(client.value)


def test_replaced_pool_goes_on_holding(served):
    client = served.client()
    served.fail()
    served.reconfigure(pool_max=5)
    assert not client.ready()
    served.pass_time(SHARE_S)
    tunnel = served.succeed()
    assert client.value is tunnel


def test_closed_pool_holds_nobody(served):
    client = served.client()
    served.fail()
    served.pool.close(Reason.DRAINED)
    client.join()
    assert "closing" in str(client.value)
