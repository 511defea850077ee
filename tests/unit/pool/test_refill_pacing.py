"""When a pool may refill after leases and losses, and since when it is short of tunnels."""

import pytest

from pomagent.pool.backoff import HEALTHY_AFTER_S
from pomagent.pool.refill_pacing import LOSS_REVIEW_S, RefillPacing
from tests.fakes.clock import FakeDice

NOW = 1000.0
OLD_S = HEALTHY_AFTER_S
"""An age at which a loss is not taken for a failure."""


@pytest.fixture
def pacing() -> RefillPacing:
    return RefillPacing(FakeDice(1.0))


def test_refill_follows_a_lease_after_the_delay(pacing):
    assert pacing.leased(NOW, 0.02) == NOW + 0.02
    assert pacing.refill_from == NOW + 0.02


def test_further_leases_do_not_delay_a_refill_that_is_due(pacing):
    pacing.leased(NOW, 0.02)
    assert pacing.leased(NOW + 0.01, 0.02) == NOW + 0.02


def test_lost_tunnel_is_reviewed_once_before_it_is_replaced(pacing):
    pacing.lost(OLD_S, NOW, verdict_at=0.0)
    assert pacing.refill_from == pacing.review_at == NOW + LOSS_REVIEW_S
    assert not pacing.is_review_due(NOW)
    assert pacing.is_review_due(NOW + LOSS_REVIEW_S)
    assert not pacing.is_review_due(NOW + LOSS_REVIEW_S)
    assert pacing.review_at is None


def test_later_losses_do_not_delay_the_review(pacing):
    pacing.lost(OLD_S, NOW, verdict_at=0.0)
    pacing.lost(OLD_S, NOW + 0.05, verdict_at=0.0)
    assert pacing.review_at == NOW + LOSS_REVIEW_S
    assert pacing.refill_from == NOW + 0.05 + LOSS_REVIEW_S


def test_refill_waits_for_the_verdict_on_early_closes(pacing):
    pacing.lost(OLD_S, NOW, verdict_at=NOW + 1.0)
    assert pacing.refill_from == NOW + 1.0


def test_young_losses_delay_refills_ever_longer_until_forgiven(pacing):
    now, delays = NOW, []
    for _ in range(5):
        pacing.lost(1.0, now, verdict_at=0.0)
        delays.append(pacing.refill_from - now)
        now = pacing.refill_from
    assert pytest.approx(delays) == [0.3, 0.3, 0.3, 1.0, 2.0]
    assert pacing.early_close_count == 5
    pacing.forgive()
    assert (pacing.early_close_count, pacing.refill_from <= now) == (0, True)


def test_delay_never_ends_earlier_than_before(pacing):
    pacing.delay_until(NOW + 5)
    pacing.delay_until(NOW + 1)
    assert pacing.refill_from == NOW + 5


def test_shortage_lasts_from_its_beginning_to_its_end(pacing):
    assert not pacing.is_short_for(1.0, NOW)
    pacing.note_depth(NOW, is_short=True)
    pacing.note_depth(NOW + 1, is_short=True)
    assert not pacing.is_short_for(1.0, NOW + 1)
    assert pacing.is_short_for(1.0, NOW + 1.1)
    pacing.note_depth(NOW + 2, is_short=False)
    assert not pacing.is_short_for(1.0, NOW + 9)
