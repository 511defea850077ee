"""The wakeup of a housekeeper: the earliest moment counts, and no ring is missed."""

from collections.abc import Iterator

import gevent
import pytest

from pomagent.pool.wakeup import WakeupTimer
from tests.fakes.clock import FakeClock
from tests.fakes.greenlets import settle

SOON_S, NEVER_S = 0.002, 3600.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def wakeup(clock: FakeClock) -> Iterator[WakeupTimer]:
    wakeup = WakeupTimer(clock)
    yield wakeup
    wakeup.close()


def test_sleeper_wakes_at_the_moment_it_named(wakeup, clock):
    gevent.spawn(wakeup.wait_until, clock.now + SOON_S).get(timeout=10)


def test_earlier_moment_wakes_the_sleeper(wakeup, clock):
    sleeper = gevent.spawn(wakeup.wait_until, clock.now + NEVER_S)
    settle()
    wakeup.ring_by(clock.now + SOON_S)
    sleeper.get(timeout=10)


def test_later_moment_does_not_postpone_the_wakeup(wakeup, clock):
    sleeper = gevent.spawn(wakeup.wait_until, clock.now + SOON_S)
    settle()
    wakeup.ring_by(clock.now + NEVER_S)
    sleeper.get(timeout=10)


def test_ring_before_the_sleep_is_not_missed(wakeup):
    wakeup.ring()
    gevent.spawn(wakeup.wait_until, None).get(timeout=10)


def test_sleeper_is_woken_once_for_several_rings(wakeup):
    wakeup.ring()
    wakeup.ring()
    gevent.spawn(wakeup.wait_until, None).get(timeout=10)
    sleeper = gevent.spawn(wakeup.wait_until, None)
    settle()
    assert not sleeper.ready()
    sleeper.kill()


def test_closed_timer_wakes_no_sleeper(wakeup, clock):
    sleeper = gevent.spawn(wakeup.wait_until, clock.now + SOON_S)
    settle()
    wakeup.close()
    gevent.sleep(5 * SOON_S)
    assert not sleeper.ready()
    sleeper.kill()
