"""What is kept warm at the levels ``tls`` and ``off``."""

from __future__ import annotations

import pytest

from pomagent.pool.backoff import RETRY_AFTER_CAP_S
from pomagent.pool.demand import REFILL_DELAY_S
from pomagent.protocol.lifecycle import Reason, State
from tests.fakes.greenlets import settle
from tests.fakes.pool import DENIED, DOWN, Scene


class TestLevelTls:
    @pytest.fixture
    def scene(self, make) -> Scene:
        return make(warm="tls").start()

    def test_connections_are_secured_and_no_connect_is_sent(self, scene):
        assert {"secure"} == {dial.step for dial in scene.opener.dials}
        assert [tunnel.state for tunnel in scene.warm()] == [State.SECURED] * 2

    def test_lease_sends_the_connect_over_the_oldest_connection(self, scene):
        oldest = scene.warm()[0]
        client = scene.client()
        assert [oldest] == [dial.tunnel for dial in scene.opener.pending]
        scene.succeed()
        assert client.value is oldest
        assert oldest.was_warm
        assert scene.pool.warm_count == 1

    def test_lease_dials_without_a_live_connection(self, scene):
        for tunnel in scene.warm():
            tunnel.die_unnoticed()
        client = scene.client()
        tunnel = scene.succeed()
        assert client.value is tunnel
        assert not tunnel.was_warm

    def test_opened_tunnel_of_a_client_that_left_is_discarded(self, scene):
        client = scene.client()
        client.kill()
        tunnel = scene.succeed()
        assert tunnel.reason is Reason.ABORTED
        assert tunnel not in scene.warm()

    def test_tunnel_given_to_a_client_that_left_is_discarded(self, scene):
        client = scene.client()
        tunnel = scene.opener.pending[0].succeed()
        client.kill(block=False)
        settle()
        assert tunnel.reason is Reason.ABORTED

    def test_tls_connection_is_never_given_to_a_client(self, make):
        scene = make(warm="tls", held=frozenset({"secure", "open"})).start()
        client = scene.client()
        for dial in scene.opener.pending[:2]:
            dial.succeed()
        settle()
        assert not client.ready()
        assert scene.pool.warm_count == 2

    def test_connection_is_replaced_after_the_lease(self, scene):
        scene.client()
        scene.pass_time(REFILL_DELAY_S)
        assert scene.pool.warm_count == 2

    def test_refusal_stands_until_a_connect_is_accepted(self, scene):
        """TLS alone proves nothing about the route, which must not look up while every client is refused."""
        assert not scene.pool.status.has_succeeded
        scene.client()
        scene.fail(DENIED)
        scene.pass_time(RETRY_AFTER_CAP_S)
        assert scene.pool.warm_count == 2
        assert scene.pool.last_error is DENIED
        scene.client()
        scene.succeed()
        assert scene.pool.last_error is None
        assert scene.pool.status.has_succeeded

    def test_failed_handshake_is_over_with_the_next_connection(self, make):
        scene = make(warm="tls", held=frozenset({"secure"})).start()
        scene.fail(DOWN)
        assert scene.pool.last_error is DOWN
        scene.succeed()
        assert scene.pool.last_error is None


class TestLevelOff:
    @pytest.fixture
    def scene(self, make) -> Scene:
        return make(warm="off").start()

    def test_nothing_is_kept_warm(self, scene):
        scene.pass_time(3600.0)
        assert scene.opener.dials == []

    def test_client_gets_its_tunnel_and_nothing_is_refilled(self, scene):
        client = scene.client()
        tunnel = scene.succeed()
        assert client.value is tunnel
        scene.pass_time(REFILL_DELAY_S)
        assert scene.opener.open_tunnels == [tunnel]

    def test_tunnel_of_a_client_that_left_is_discarded(self, scene):
        scene.client().kill()
        assert scene.succeed().reason is Reason.ABORTED
