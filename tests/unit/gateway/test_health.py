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


class Watched:
    def __init__(self) -> None:
        self.log = FakeLog()
        self.clock = FakeClock()
        self.wall = FakeClock(1_800_000_000.0)
        self._turn = Event()
        self.watch = GatewayHealth(
            "edge.example.com:443", self.log.log, self.clock, self.wall, lambda _: self._turn.wait()
        )  # fmt: skip

    def pass_time(self, seconds: float) -> None:
        settle()
        self.clock.advance(seconds)
        self._turn.set()
        settle()
        self._turn.clear()

    def show(self, expires_at: float) -> None:
        until = time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(expires_at))
        self.watch.note_certificate({"notAfter": until})

    def said(self) -> list[tuple[str, float]]:
        lines = self.log.named(events.CERTIFICATE_EXPIRING)
        return [(line["level"], line["expires_in_ms"] / DAY_S / 1000) for line in lines]


@pytest.fixture
def watched() -> Iterator[Watched]:
    here = Watched()
    yield here
    here.watch.close()
    settle()


def lines(watched: Watched) -> list[tuple[int, int, int]]:
    return [(e["count"], e["routes"], e["within_ms"]) for e in watched.log.named(events.TUNNELS_LOST)]


def test_a_burst_of_losses_is_logged_once_after_its_end(watched):
    for number in range(200):
        watched.watch.lost(f"route-{number % 50}", 10.0 + number)
        watched.clock.advance(0.001)
    settle()
    assert lines(watched) == []
    watched.pass_time(QUIET_S)
    assert lines(watched) == [(200, 50, 199)]


def test_few_losses_are_not_logged(watched):
    watched.watch.lost("a", 10.0)
    watched.pass_time(QUIET_S)
    assert lines(watched) == []


def test_each_burst_is_logged(watched):
    for _ in range(2):
        for number in range(5):
            watched.watch.lost(f"route-{number}", 10.0)
        watched.pass_time(QUIET_S)
        settle()
    assert lines(watched) == [(5, 5, 0), (5, 5, 0)]


def test_certificate_expiry_is_logged_once_for_each_step(watched):
    end = watched.wall.now + 30 * DAY_S
    for days_left in (30, 7, 6, 1, 0.5, 0.04, 0, -1):
        watched.wall.now = end - days_left * DAY_S
        watched.show(end)
    assert watched.said() == [("warning", 7), ("warning", 1), ("warning", 0.04), ("error", 0)]


def test_renewed_certificate_restarts_the_steps(watched):
    for days in (6, 90, 6):
        watched.show(watched.wall.now + days * DAY_S)
    assert len(watched.said()) == 2
    assert watched.watch.certificate_expires_at == watched.wall.now + 6 * DAY_S


def test_unverified_certificate_is_not_logged(watched):
    watched.watch.note_certificate({})
    assert watched.said() == []
    assert watched.watch.certificate_expires_at is None


def test_waiting_calls_run_once_and_spread_by_their_number(watched):
    calls: list[float] = []
    for _ in range(3):
        watched.watch.when_back(lambda spread_s, calls=calls: calls.append(spread_s))
    watched.watch.reached()
    watched.watch.reached()
    assert calls == [3 / REFILLS_PER_S] * 3


def tell_time(watched, offset_s):
    watched.watch.note_date(formatdate(watched.wall.now + offset_s, usegmt=True))


def test_clock_offset_is_logged_once_until_the_clocks_agree_again(watched):
    for offset in (0, 60, 61, 7200, 0, -7200):
        tell_time(watched, offset)
    said = watched.log.named(events.CLOCK_DRIFTED)
    assert [(line["level"], line["offset_ms"]) for line in said] == [("warning", 61_000), ("warning", -7_200_000)]
    assert said[1]["error"] == "this host's clock is 2 hours ahead of the gateway's: set it, or the gateway's"
    assert watched.watch.clock_offset_s == -7200


def test_malformed_date_changes_nothing(watched):
    tell_time(watched, 5)
    watched.watch.note_date("yesterday")
    assert watched.watch.clock_offset_s == 5
