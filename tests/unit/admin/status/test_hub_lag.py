"""Measuring how late a timer fires."""

from __future__ import annotations

import pytest

from pomagent.admin.status.hub_lag import BOUNDS_S, INTERVAL_S, STALL_S, HubLag
from tests.fakes.clock import FakeClock


@pytest.mark.parametrize(("late_s", "bucket"), [(0.0, 0), (0.003, 1), (0.03, 4), (30.0, len(BOUNDS_S)), (-0.01, 0)])
def test_a_measurement_counts_the_delay(late_s: float, bucket: int) -> None:
    clock = FakeClock()
    lag = HubLag(lambda _: None, clock, lambda seconds: clock.advance(seconds + late_s))
    lag.measure()
    measured = lag.seconds.now
    assert [index for index, count in enumerate(measured.counts) if count] == [bucket]
    assert measured.total == pytest.approx(max(0.0, late_s))
    assert clock.now >= INTERVAL_S + late_s


@pytest.mark.parametrize(("late_s", "is_reported"), [(STALL_S - 0.01, False), (STALL_S + 0.01, True), (9.0, True)])
def test_long_delay_is_reported_once_with_its_duration(late_s: float, is_reported: bool) -> None:
    clock, stalls = FakeClock(), list[float]()
    HubLag(stalls.append, clock, lambda seconds: clock.advance(seconds + late_s)).measure()
    assert stalls == ([pytest.approx(late_s)] if is_reported else [])
