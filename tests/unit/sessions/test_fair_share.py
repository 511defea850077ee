"""Busy greenlets take turns: one for each turn of the event loop, in the order of their coming."""

from __future__ import annotations

import gevent
import pytest
from gevent import get_hub

from pomagent.sessions.fair_share import BUSY_BYTES, TURN_BYTES, FairShare

TURNS = 5


@pytest.fixture
def fair_share() -> FairShare:
    return FairShare()


def loop_turn() -> int:
    return int(get_hub().loop.iteration)


class Worker:
    """Takes turns and notes in which turn of the event loop it got each."""

    def __init__(self, fair_share: FairShare, name: str, log: list[tuple[str, int]], count: int = TURNS) -> None:
        self._fair_share = fair_share
        self._name = name
        self._log = log
        self._count = count
        self.greenlet = gevent.Greenlet.spawn(self._work)

    def _work(self) -> None:
        for _ in range(self._count):
            self._fair_share.go_on(TURN_BYTES)
            self._log.append((self._name, loop_turn()))


def test_the_first_one_in_a_turn_of_the_loop_does_not_wait(fair_share: FairShare) -> None:
    gevent.sleep(0.001)
    before = loop_turn()
    fair_share.go_on(TURN_BYTES)
    assert loop_turn() == before


def test_the_second_one_in_the_same_turn_of_the_loop_waits_for_another(fair_share: FairShare) -> None:
    fair_share.go_on(TURN_BYTES)
    before = loop_turn()
    fair_share.go_on(TURN_BYTES)
    assert loop_turn() > before


def test_no_two_get_one_in_the_same_turn_of_the_loop(fair_share: FairShare) -> None:
    log: list[tuple[str, int]] = []
    gevent.joinall([Worker(fair_share, name, log).greenlet for name in "abc"])
    given_in = [iteration for _, iteration in log]
    assert len(set(given_in)) == len(given_in) == 3 * TURNS


def test_they_get_it_in_the_order_of_their_coming(fair_share: FairShare) -> None:
    log: list[tuple[str, int]] = []
    fair_share.go_on(TURN_BYTES)
    gevent.joinall([Worker(fair_share, name, log).greenlet for name in "abc"])
    assert "".join(name for name, _ in log) == "abc" * TURNS


def test_whoever_is_ended_while_it_waits_holds_up_nobody(fair_share: FairShare) -> None:
    log: list[tuple[str, int]] = []
    fair_share.go_on(TURN_BYTES)
    workers = [Worker(fair_share, name, log, 1) for name in "abc"]
    gevent.sleep(0)  # all have queued, and no turn of the loop has passed
    workers[0].greenlet.kill(block=False)
    gevent.joinall([worker.greenlet for worker in workers], timeout=10, raise_error=True)
    assert [name for name, _ in log] == ["b", "c"]


def test_all_that_wait_may_be_ended_and_the_next_one_gets_its_turn(fair_share: FairShare) -> None:
    log: list[tuple[str, int]] = []
    fair_share.go_on(TURN_BYTES)
    gone = [Worker(fair_share, name, log, 1).greenlet for name in "ab"]
    gevent.sleep(0)
    gevent.killall(gone)
    gevent.joinall([Worker(fair_share, "c", log, 2).greenlet], timeout=10, raise_error=True)
    assert [name for name, _ in log] == ["c", "c"]


def test_whoever_has_copied_little_needs_none(fair_share: FairShare) -> None:
    fair_share.go_on(TURN_BYTES)
    before = loop_turn()
    gevent.joinall([gevent.Greenlet.spawn(fair_share.go_on, BUSY_BYTES - 1)])
    assert loop_turn() - before <= 1


def test_it_is_over_when_so_much_is_copied_and_not_before(fair_share: FairShare) -> None:
    gevent.sleep(0.001)
    assert fair_share.go_on(BUSY_BYTES) == 0
    before = loop_turn()
    assert fair_share.go_on(TURN_BYTES - 1) == TURN_BYTES - 1
    assert loop_turn() == before
    assert fair_share.go_on(TURN_BYTES) == 0
    assert loop_turn() > before
