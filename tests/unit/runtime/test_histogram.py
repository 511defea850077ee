"""Measurements counted by size."""

from __future__ import annotations

from pomagent.gateway.counters import CODES, GatewayCounts
from pomagent.runtime.histogram import Histogram


def test_a_bound_counts_what_is_up_to_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.1, 2.0, 2.1, 100.0):
        histogram.observe(value)
    assert histogram.now.counts == (2, 2, 2)
    assert round(histogram.now.total, 1) == 106.2


def test_snapshot_does_not_change() -> None:
    histogram = Histogram((1.0,))
    before = histogram.now
    histogram.observe(0.5)
    assert (before.counts, before.total, histogram.now.counts) == ((0, 0), 0.0, (1, 0))


def test_steps_that_did_not_happen_are_not_counted() -> None:
    counts = GatewayCounts()
    counts.took(dns=None, tcp=2.0, tls=30.0)
    assert sorted(counts.phases) == ["tcp", "tls"]
    assert counts.phases["tls"].now.total == 0.03


def test_a_gateway_cannot_make_labels_without_end() -> None:
    counts = GatewayCounts()
    for status in range(100, 1000):
        counts.answered(status)
    assert len(counts.answers) == len(CODES) + 9
    assert (counts.answers["403"], counts.answers["4xx"], counts.answers.total()) == (1, 89, 900)
