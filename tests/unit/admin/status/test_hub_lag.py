"""Measuring how late a timer fires."""

from __future__ import annotations

import pytest

from pomagent.admin.status.hub_lag import BOUNDS_S, INTERVAL_S, HubLag
from tests.fakes.clock import FakeClock


@pytest.mark.parametrize(("late_s", "bucket"), [(0.0, 0), (0.003, 1), (0.03, 4), (30.0, len(BOUNDS_S)), (-0.01, 0)])
def test_a_measurement_counts_the_delay(late_s: float, bucket: int) -> None:
    clock = FakeClock()
    lag = HubLag(clock, lambda seconds: clock.advance(seconds + late_s))
    lag.measure()
    measured = lag.seconds.now
    assert [index for index, count in enumerate(measured.counts) if count] == [bucket]
    assert measured.total == pytest.approx(max(0.0, late_s))
    assert clock.now >= INTERVAL_S + late_s
