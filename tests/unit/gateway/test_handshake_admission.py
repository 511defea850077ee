"""Order and rate of handshakes: clients first, within the limit, refills within the rate."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pomagent.gateway.handshake_admission import BURST, Admission
from pomagent.gateway.mass_loss import REFILLS_PER_S

NOW = 1000.0


def door(limit: int = 1000) -> Admission[str]:
    return Admission(limit)


def let_in(admission: Admission[str], now: float = NOW) -> list[str]:
    """Return all waiters that are admitted now."""
    return list(iter(lambda: admission.admit(now), None))


def test_limit_bounds_concurrent_handshakes():
    admission = door(2)
    for name in "abc":
        admission.join(name, urgent=True)
    assert let_in(admission) == ["a", "b"]
    admission.done()
    assert let_in(admission) == ["c"]


def test_clients_are_admitted_before_earlier_refills():
    admission = door(1)
    for name, urgent in (("refill", False), ("first", True), ("second", True)):
        admission.join(name, urgent=urgent)
    order = []
    for _ in range(3):
        order += let_in(admission)
        admission.done()
    assert order == ["first", "second", "refill"]


def test_refills_begin_no_faster_than_the_rate():
    admission = door()
    for number in range(3 * BURST):
        admission.join(f"refill-{number}", urgent=False)
    assert len(let_in(admission)) == BURST
    assert admission.next_at() == pytest.approx(NOW + 1 / REFILLS_PER_S)
    assert len(let_in(admission, NOW + 10 / REFILLS_PER_S + 0.001)) == 10


def test_clients_do_not_wait_for_the_rate_but_count_toward_it():
    admission = door()
    for number in range(3 * BURST):
        admission.join(f"client-{number}", urgent=True)
    admission.join("refill", urgent=False)
    assert len(let_in(admission)) == 3 * BURST
    assert let_in(admission, NOW + BURST / REFILLS_PER_S) == []
    assert let_in(admission, NOW + (BURST + 2) / REFILLS_PER_S) == ["refill"]


def test_waiter_that_left_is_not_admitted():
    admission = door()
    for name, urgent in (("a", True), ("b", True), ("c", False)):
        admission.join(name, urgent=urgent)
    admission.leave("a")
    admission.leave("c")
    assert let_in(admission) == ["b"]
    assert admission.waiting == 0


def test_next_time_is_none_without_a_refill_or_a_free_place():
    admission = door(1)
    assert admission.next_at() is None
    admission.join("a", urgent=True)
    let_in(admission)
    admission.join("refill", urgent=False)
    assert admission.next_at() is None


class AdmissionMachine(RuleBasedStateMachine):
    """Any order of coming, leaving and finishing."""

    LIMIT = 3

    def __init__(self) -> None:
        super().__init__()
        self.admission: Admission[int] = Admission(self.LIMIT)
        self.now = NOW
        self.numbers = iter(range(1_000_000))
        self.lines: dict[bool, list[int]] = {True: [], False: []}
        self.refills: list[float] = []
        self.under_way = 0

    def open(self) -> None:
        while (waiter := self.admission.admit(self.now)) is not None:
            urgent = bool(self.lines[True])
            assert self.lines[urgent].pop(0) == waiter
            self.under_way += 1
            if not urgent:
                self.refills.append(self.now)

    @rule(urgent=st.booleans())
    def ask(self, urgent: bool) -> None:
        waiter = next(self.numbers)
        self.lines[urgent].append(waiter)
        self.admission.join(waiter, urgent=urgent)
        self.open()

    @precondition(lambda self: self.under_way)
    @rule()
    def done(self) -> None:
        self.under_way -= 1
        self.admission.done()
        self.open()

    @precondition(lambda self: any(self.lines.values()))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from([*self.lines[True], *self.lines[False]]))
        for line in self.lines.values():
            if waiter in line:
                line.remove(waiter)
        self.admission.leave(waiter)
        self.open()

    @rule(seconds=st.floats(0, 0.1))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.open()

    @invariant()
    def never_more_than_the_limit(self) -> None:
        assert self.admission.under_way == self.under_way <= self.LIMIT

    @invariant()
    def no_application_waits_while_there_is_a_place(self) -> None:
        assert not self.lines[True] or self.under_way == self.LIMIT

    @invariant()
    def a_refill_waits_only_for_a_place_or_for_the_rate(self) -> None:
        if self.lines[False] and self.under_way < self.LIMIT:
            at = self.admission.next_at()
            assert at is not None
            assert at > self.now - 1e-6

    @invariant()
    def no_more_refills_than_the_rate_allows(self) -> None:
        lately = [at for at in self.refills if at > self.now - 1]
        assert len(lately) <= BURST + REFILLS_PER_S + 1


TestAnyHistory = AdmissionMachine.TestCase
TestAnyHistory.settings = settings(max_examples=25, stateful_step_count=40)
