"""Busy greenlets take turns: one per iteration of the event loop, first come, first served."""

from __future__ import annotations

import gevent
import pytest
from gevent import get_hub

from pomagent.sessions.fair_share import BUSY_BYTES, TURN_BYTES, FairShare

TURNS = 5


@pytest.fixture
def fair_share() -> FairShare:
    return FairShare()


def loop_iteration() -> int:
    return int(get_hub().loop.iteration)


class Worker:
    """Takes turns and records in which iteration of the event loop it got each."""

    def __init__(self, fair_share: FairShare, name: str, log: list[tuple[str, int]], count: int = TURNS) -> None:
        self._fair_share = fair_share
        self._name = name
        self._log = log
        self._count = count
        self.greenlet = gevent.Greenlet.spawn(self._work)

    def _work(self) -> None:
        for _ in range(self._count):
            self._fair_share.wait_for_turn(TURN_BYTES)
            self._log.append((self._name, loop_iteration()))


def test_first_turn_of_an_iteration_is_granted_without_waiting(fair_share: FairShare) -> None:
    gevent.sleep(0.001)
    before = loop_iteration()
    fair_share.wait_for_turn(TURN_BYTES)
    assert loop_iteration() == before


def test_second_turn_waits_for_the_next_iteration(fair_share: FairShare) -> None:
    fair_share.wait_for_turn(TURN_BYTES)
    before = loop_iteration()
    fair_share.wait_for_turn(TURN_BYTES)
    assert loop_iteration() > before


def test_only_one_turn_is_granted_per_iteration(fair_share: FairShare) -> None:
    log: list[tuple[str, int]] = []
    gevent.joinall([Worker(fair_share, name, log).greenlet for name in "abc"])
    granted_in = [iteration for _, iteration in log]
    assert len(set(granted_in)) == len(granted_in) == 3 * TURNS


def test_turns_are_granted_in_order_of_arrival(fair_share: FairShare) -> None:
    log: list[tuple[str, int]] = []
    fair_share.wait_for_turn(TURN_BYTES)
    gevent.joinall([Worker(fair_share, name, log).greenlet for name in "abc"])
    assert "".join(name for name, _ in log) == "abc" * TURNS


def test_greenlet_killed_while_waiting_is_skipped(fair_share: FairShare) -> None:
    log: list[tuple[str, int]] = []
    fair_share.wait_for_turn(TURN_BYTES)
    workers = [Worker(fair_share, name, log, 1) for name in "abc"]
    gevent.sleep(0)  # all have queued within this iteration
    workers[0].greenlet.kill(block=False)
    gevent.joinall([worker.greenlet for worker in workers], timeout=10, raise_error=True)
    assert [name for name, _ in log] == ["b", "c"]


def test_turns_are_still_granted_after_all_waiting_greenlets_were_killed(fair_share: FairShare) -> None:
    log: list[tuple[str, int]] = []
    fair_share.wait_for_turn(TURN_BYTES)
    gone = [Worker(fair_share, name, log, 1).greenlet for name in "ab"]
    gevent.sleep(0)
    gevent.killall(gone)
    gevent.joinall([Worker(fair_share, "c", log, 2).greenlet], timeout=10, raise_error=True)
    assert [name for name, _ in log] == ["c", "c"]


def test_small_copy_needs_no_turn(fair_share: FairShare) -> None:
    fair_share.wait_for_turn(TURN_BYTES)
    before = loop_iteration()
    gevent.joinall([gevent.Greenlet.spawn(fair_share.wait_for_turn, BUSY_BYTES - 1)])
    assert loop_iteration() - before <= 1


def test_turn_lasts_until_its_bytes_are_copied(fair_share: FairShare) -> None:
    gevent.sleep(0.001)
    assert fair_share.wait_for_turn(BUSY_BYTES) == 0
    before = loop_iteration()
    assert fair_share.wait_for_turn(TURN_BYTES - 1) == TURN_BYTES - 1
    assert loop_iteration() == before
    assert fair_share.wait_for_turn(TURN_BYTES) == 0
    assert loop_iteration() > before
