"""A gateway's losses, certificate and clock, each logged once."""

import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest
from gevent.event import Event

from pomagent.gateway.health import GatewayHealth
from pomagent.gateway.mass_loss import QUIET_S, REFILLS_PER_S
from pomagent.log import events
from tests.fakes.clock import FakeClock
from tests.fakes.greenlets import settle
from tests.fakes.log import FakeLog

DAY_S = 86_400.0


class Scene:
    def __init__(self) -> None:
        self.log = FakeLog()
        self.clock = FakeClock()
        self.wall = FakeClock(1_800_000_000.0)
        self._pause_over = Event()
        self.health = GatewayHealth(
            "edge.example.com:443", self.log.log, self.clock, self.wall, lambda _: self._pause_over.wait()
        )  # fmt: skip

    def pass_time(self, seconds: float) -> None:
        settle()
        self.clock.advance(seconds)
        self._pause_over.set()
        settle()
        self._pause_over.clear()

    def show(self, expires_at: float) -> None:
        until = time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(expires_at))
        self.health.note_certificate({"notAfter": until})

    def logged(self) -> list[tuple[str, float]]:
        lines = self.log.named(events.CERTIFICATE_EXPIRING)
        return [(line["level"], line["expires_in_ms"] / DAY_S / 1000) for line in lines]


@pytest.fixture
def scene() -> Iterator[Scene]:
    here = Scene()
    yield here
    here.health.close()
    settle()


def lines(scene: Scene) -> list[tuple[int, int, int]]:
    return [(e["count"], e["routes"], e["within_ms"]) for e in scene.log.named(events.TUNNELS_LOST)]


def test_a_burst_of_losses_is_logged_once_after_its_end(scene):
    for number in range(200):
        scene.health.lost(f"route-{number % 50}", 10.0 + number)
        scene.clock.advance(0.001)
    settle()
    assert lines(scene) == []
    scene.pass_time(QUIET_S)
    assert lines(scene) == [(200, 50, 199)]


def test_few_losses_are_not_logged(scene):
    scene.health.lost("a", 10.0)
    scene.pass_time(QUIET_S)
    assert lines(scene) == []


def test_each_burst_is_logged(scene):
    for _ in range(2):
        for number in range(5):
            scene.health.lost(f"route-{number}", 10.0)
        scene.pass_time(QUIET_S)
        settle()
    assert lines(scene) == [(5, 5, 0), (5, 5, 0)]


def test_certificate_expiry_is_logged_once_for_each_step(scene):
    end = scene.wall.now + 30 * DAY_S
    for days_left in (30, 7, 6, 1, 0.5, 0.04, 0, -1):
        scene.wall.now = end - days_left * DAY_S
        scene.show(end)
    assert scene.logged() == [("warning", 7), ("warning", 1), ("warning", 0.04), ("error", 0)]


def test_renewed_certificate_restarts_the_steps(scene):
    for days in (6, 90, 6):
        scene.show(scene.wall.now + days * DAY_S)
    assert len(scene.logged()) == 2
    assert scene.health.certificate_expires_at == scene.wall.now + 6 * DAY_S


def test_unverified_certificate_is_not_logged(scene):
    scene.health.note_certificate({})
    assert scene.logged() == []
    assert scene.health.certificate_expires_at is None


def test_waiting_calls_run_once_and_spread_by_their_number(scene):
    calls: list[float] = []
    for _ in range(3):
        scene.health.when_back(lambda spread_s, calls=calls: calls.append(spread_s))
    scene.health.reached()
    scene.health.reached()
    assert calls == [3 / REFILLS_PER_S] * 3


def note_offset(scene, offset_s):
    scene.health.note_date(formatdate(scene.wall.now + offset_s, usegmt=True))


def test_clock_offset_is_logged_once_until_the_clocks_agree_again(scene):
    for offset in (0, 60, 61, 7200, 0, -7200):
        note_offset(scene, offset)
    logged = scene.log.named(events.CLOCK_DRIFTED)
    assert [(line["level"], line["offset_ms"]) for line in logged] == [("warning", 61_000), ("warning", -7_200_000)]
    assert logged[1]["error"] == "this host's clock is 2 hours ahead of the gateway's: set it, or the gateway's"
    assert scene.health.clock_offset_s == -7200


def test_malformed_date_changes_nothing(scene):
    note_offset(scene, 5)
    scene.health.note_date("yesterday")
    assert scene.health.clock_offset_s == 5
