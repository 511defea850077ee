"""What a pool learns of its route's server and gateway, and what it keeps warm because of it."""

from __future__ import annotations

import pytest

from pomagent.gateway.mass_loss import REFILLS_PER_S
from pomagent.log import events
from pomagent.pool import Pool, PoolContext
from pomagent.pool.refill_pacing import LOSS_REVIEW_S
from pomagent.pool.warm_policy import LISTEN_S
from pomagent.protocol.lifecycle import Reason, State
from pomagent.settings import HostPort
from tests.fakes.greenlets import settle
from tests.fakes.pool import GREENLETS, Scene
from tests.fakes.tunnels import FakeOpener

GREETING = b"SSH-2.0-OpenSSH_9.6\r\n"
UNLISTED = {"destination": HostPort("db.example.com", 4711), "protocol": "auto", "warm": "auto"}


class TestUnknownServer:
    @pytest.fixture
    def scene(self, make) -> Scene:
        return make(**UNLISTED, pool_min=3).start()

    def classified(self, scene: Scene) -> list[tuple[str, str, str]]:
        return [(e["protocol"], e["warm"], e["why"]) for e in scene.fake_log.named(events.ROUTE_CLASSIFIED)]

    def test_single_tunnel_listens_first(self, scene):
        assert scene.pending == 1
        scene.succeed()
        assert (scene.pending, scene.pool.warm_count, scene.pool.target_count) == (0, 1, 1)

    def test_client_does_not_get_the_listening_tunnel(self, scene):
        probe = scene.succeed()
        client = scene.client()
        assert client.value is None
        own = scene.succeed()
        assert client.value is own
        assert scene.warm() == [probe]

    def test_refill_listens_although_a_client_waits(self, scene):
        client = scene.client()
        probe = scene.succeed(0)
        assert not client.ready()
        assert scene.warm() == [probe]
        scene.succeed()
        assert client.ready()

    def test_silence_fills_the_pool_with_tunnels(self, scene):
        probe = scene.succeed()
        scene.pass_time(LISTEN_S)
        assert self.classified(scene) == [("generic", "tunnel", "silence")]
        scene.filled()
        assert scene.pool.warm_count == 3
        assert scene.client().value is probe

    def test_silence_proves_nothing_without_a_listening_tunnel(self, scene):
        scene.succeed()
        scene.pass_time(LISTEN_S / 2)
        scene.reconfigure(pool_max=5)
        scene.pass_time(LISTEN_S)
        assert not self.classified(scene)
        scene.succeed()
        scene.pass_time(LISTEN_S)
        assert self.classified(scene) == [("generic", "tunnel", "silence")]

    def test_greeting_closes_the_listening_tunnel_and_fills_the_pool_with_tls_connections(self, scene):
        probe = scene.succeed()
        probe.say(GREETING)
        settle()
        assert (probe.state, probe.reason) == (State.CLOSED, Reason.UNWANTED)
        assert self.classified(scene) == [("ssh", "tls", "greeting")]
        assert [tunnel.state for tunnel in scene.warm()] == [State.SECURED] * 3

    def test_greeting_that_came_with_the_connect_answer_counts(self, scene):
        scene.opener.pending[0].tunnel.early += GREETING
        scene.succeed()
        assert self.classified(scene) == [("ssh", "tls", "greeting")]

    def test_greeting_in_a_session_counts(self, scene):
        scene.history.note_greeting(GREETING, 0.1)
        settle()
        assert self.classified(scene) == [("ssh", "tls", "greeting")]

    def test_next_pool_of_the_route_knows_the_protocol(self, scene):
        scene.succeed().say(GREETING)
        settle()
        opener = FakeOpener(scene.clock, frozenset())
        context = PoolContext(
            scene.route, scene.history, scene.gateway_health, scene.fake_log.log, GREENLETS, scene.clock
        )
        following = Pool(context, opener)  # type: ignore[arg-type]
        following.start()
        settle()
        assert {"secure"} == {dial.step for dial in opener.dials}
        following.close(Reason.STALE)
        settle()

    def test_pool_without_a_minimum_opens_nothing_to_listen(self, make):
        assert make(**UNLISTED, pool_min=0).start().pending == 0


class TestDemotion:
    def close_all(self, scene: Scene, age_s: float) -> None:
        """Close all warm tunnels at this age, as a server does that limits the time to log in."""
        scene.clock.advance(age_s)
        for tunnel in scene.warm():
            tunnel.end()
        settle()

    def demoted(self, make, **changes: object) -> tuple[Scene, int]:
        """Return a scene in which all tunnels close at 10 s, and how many were opened until the demotion."""
        scene = make(held=frozenset(), **changes).start()
        for _ in range(20):
            self.close_all(scene, 10.0)
            scene.pass_time(1.1)
            scene.pass_time(0.5)
            if scene.fake_log.named(events.ROUTE_DEMOTED):
                break
        return scene, sum(dial.step == "open" for dial in scene.opener.dials)

    @pytest.mark.parametrize(("depth", "most"), [(1, 3), (4, 12), (16, 30), (40, 41), (90, 91)])
    def test_demotion_comes_long_before_the_server_has_counted_a_hundred(self, make, depth, most):
        scene, opened = self.demoted(make, pool_min=depth, pool_max=max(depth, 16))
        assert opened <= most
        [line] = scene.fake_log.named(events.ROUTE_DEMOTED)
        assert (line["level"], line["warm"], line["why"], line["retry_in_ms"]) == (
            "warning", "tls", "demoted", 3_600_000,
        )  # fmt: skip
        assert {State.SECURED} == {tunnel.state for tunnel in scene.warm()}
        assert scene.pool.warm_count == depth

    def test_expiry_by_the_pool_is_no_early_close(self, make):
        scene = make(held=frozenset(), pool_min=4).start()
        for _ in range(20):
            scene.pass_time(100.0)
        assert not scene.fake_log.named(events.ROUTE_DEMOTED)

    def test_demotion_ends_in_a_trial_of_one_tunnel_an_hour_later(self, make):
        scene, _ = self.demoted(make, pool_min=4, pool_decay_s=0.0)
        scene.pass_time(3600.0)
        [line] = scene.fake_log.named(events.ROUTE_PROMOTED)
        assert (line["warm"], line["why"]) == ("tunnel", "trial")
        assert [tunnel.state for tunnel in scene.warm() if tunnel.is_ready] == [State.READY]

    def test_demotion_returns_at_once_if_the_trial_fails(self, make):
        scene, _ = self.demoted(make, pool_min=4, pool_decay_s=0.0)
        scene.pass_time(3600.0)
        self.close_all(scene, 10.0)
        scene.pass_time(1.1)
        assert [e["retry_in_ms"] for e in scene.fake_log.named(events.ROUTE_DEMOTED)] == [3_600_000, 7_200_000]


class TestMassLoss:
    def test_replacements_are_spread_over_a_time_that_grows_with_the_losses(self, make):
        scene = make(pool_min=4).filled()
        scene.clock.advance(50.0)
        for number in range(100):
            scene.gateway_health.lost(f"other-{number}", float(number))
        for tunnel in scene.warm():
            tunnel.end()
        scene.pass_time(LOSS_REVIEW_S)
        assert scene.pending == 0
        scene.pass_time(104 / REFILLS_PER_S - 0.01)  # the dice fall on the end
        assert scene.pending == 0
        scene.pass_time(0.02)
        assert scene.pending == 4

    def test_client_does_not_wait_for_the_spread(self, make):
        scene = make(pool_min=4).filled()
        for tunnel in scene.warm():
            tunnel.end()
        scene.client()
        assert scene.pending == 1

    def test_losses_of_several_routes_do_not_demote(self, make):
        scene = make(held=frozenset(), pool_min=4).start()
        for age_s in (30.0, 31.0, 30.0, 31.0):
            scene.clock.advance(age_s)
            scene.gateway_health.lost("other", 300.0)
            for tunnel in scene.warm():
                tunnel.end()
            settle()
            scene.pass_time(1.1)
            scene.pass_time(1.1)
        assert not scene.fake_log.named(events.ROUTE_DEMOTED)


def test_hidden_timeout_is_logged_once(scene):
    for _ in range(10):
        scene.history.note_close(300.0, 900.0)
    [line] = scene.fake_log.named(events.PERIOD_DETECTED)
    assert (line["kind"], line["period_ms"], line["times"]) == ("idle", 300_000, 6)
    assert "idle_timeout" in line["why"]
