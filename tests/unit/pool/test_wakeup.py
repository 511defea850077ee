"""The alarm of a keeper: whoever names the earliest moment is heeded, and nothing that rings is missed."""

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
def alarm(clock: FakeClock) -> Iterator[WakeupTimer]:
    alarm = WakeupTimer(clock)
    yield alarm
    alarm.close()


def test_it_wakes_at_the_moment_that_the_sleeper_named(alarm, clock):
    gevent.spawn(alarm.wait_until, clock.now + SOON_S).get(timeout=10)


def test_an_earlier_moment_is_heeded_while_somebody_sleeps(alarm, clock):
    sleeper = gevent.spawn(alarm.wait_until, clock.now + NEVER_S)
    settle()
    alarm.ring_by(clock.now + SOON_S)
    sleeper.get(timeout=10)


def test_a_later_moment_does_not_postpone_it(alarm, clock):
    sleeper = gevent.spawn(alarm.wait_until, clock.now + SOON_S)
    settle()
    alarm.ring_by(clock.now + NEVER_S)
    sleeper.get(timeout=10)


def test_what_rings_before_the_sleeper_sleeps_is_not_missed(alarm):
    alarm.ring()
    gevent.spawn(alarm.wait_until, None).get(timeout=10)


def test_it_rings_once_for_each_sleep(alarm):
    alarm.ring()
    alarm.ring()
    gevent.spawn(alarm.wait_until, None).get(timeout=10)
    sleeper = gevent.spawn(alarm.wait_until, None)
    settle()
    assert not sleeper.ready()
    sleeper.kill()


def test_time_wakes_nobody_after_the_close(alarm, clock):
    sleeper = gevent.spawn(alarm.wait_until, clock.now + SOON_S)
    settle()
    alarm.close()
    gevent.sleep(5 * SOON_S)
    assert not sleeper.ready()
    sleeper.kill()
