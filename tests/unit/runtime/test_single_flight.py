"""One look-up per key at a time, and a stale answer rather than none."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event

from pomagent.runtime.single_flight import Answer, SingleFlight
from tests.fakes.clock import FakeClock
from tests.fakes.greenlets import caught_crashes, settle

FRESH_S, FAILURE_FRESH_S, PATIENCE_S = 5.0, 2.0, 3600.0


class Source:
    """Answers with the test's value, at once or when the test opens it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.value: int | Exception = 1
        self.is_open = Event()
        self.is_open.set()

    def look_up(self, key: str) -> int:
        self.asked.append(key)
        self.is_open.wait()
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def answers(source: Source, clock: FakeClock) -> Iterator[SingleFlight[str, int]]:
    answers = SingleFlight(source.look_up, "look-up of", FRESH_S, clock, failure_fresh_s=FAILURE_FRESH_S)
    yield answers
    answers.close()


class TestOneLookUp:
    def test_serves_all_callers_that_wait_for_the_same_key(
        self, answers: SingleFlight[str, int], source: Source
    ) -> None:
        source.is_open.clear()
        callers = [gevent.spawn(answers.get, "a", PATIENCE_S) for _ in range(3)]
        settle()
        source.is_open.set()
        gevent.joinall(callers)
        assert [caller.value for caller in callers] == [Answer(1)] * 3
        assert source.asked == ["a"]

    def test_does_not_delay_another_key(self, answers: SingleFlight[str, int], source: Source) -> None:
        source.is_open.clear()
        callers = [gevent.spawn(answers.get, key, PATIENCE_S) for key in "ab"]
        settle()
        assert source.asked == ["a", "b"]
        gevent.killall(callers)

    def test_goes_on_when_its_first_caller_is_killed(self, answers: SingleFlight[str, int], source: Source) -> None:
        source.is_open.clear()
        first, second = (gevent.spawn(answers.get, "a", PATIENCE_S) for _ in range(2))
        settle()
        first.kill()
        source.is_open.set()
        second.join()
        assert second.value == Answer(1)

    def test_that_outlasts_a_callers_timeout_still_serves_the_next_caller(
        self, answers: SingleFlight[str, int], source: Source
    ) -> None:
        source.is_open.clear()
        assert answers.get("a", 0).value is None
        source.is_open.set()
        assert answers.get("a", PATIENCE_S) == Answer(1)
        assert source.asked == ["a"]

    def test_is_named_after_its_key(self, answers: SingleFlight[str, int], source: Source) -> None:
        source.is_open.clear()
        answers.peek("a")
        assert [greenlet.name for greenlet in answers._group] == ["look-up of a"]


class TestFreshAnswer:
    def test_is_reused_until_it_expires(
        self, answers: SingleFlight[str, int], source: Source, clock: FakeClock
    ) -> None:
        answers.get("a", PATIENCE_S)
        source.value = 2
        clock.advance(FRESH_S - 0.1)
        assert answers.get("a", PATIENCE_S) == Answer(1)
        clock.advance(0.1)
        assert answers.get("a", PATIENCE_S) == Answer(2)
        assert source.asked == ["a", "a"]

    def test_is_peeked_at_without_another_look_up(self, answers: SingleFlight[str, int], source: Source) -> None:
        assert answers.peek("a") is None
        settle()
        assert [answers.peek("a"), answers.peek("a")] == [1, 1]
        assert source.asked == ["a"]


class TestFailure:
    @pytest.mark.parametrize("error", [OSError("away"), ValueError("no such key can exist")])
    def test_without_a_last_answer_is_returned_to_every_caller(
        self, answers: SingleFlight[str, int], source: Source, error: Exception
    ) -> None:
        source.is_open.clear()
        source.value = error
        callers = [gevent.spawn(answers.get, "a", PATIENCE_S) for _ in range(2)]
        settle()
        source.is_open.set()
        gevent.joinall(callers)
        assert [caller.value for caller in callers] == [Answer(None, error)] * 2

    def test_keeps_the_last_answer(self, answers: SingleFlight[str, int], source: Source, clock: FakeClock) -> None:
        answers.get("a", PATIENCE_S)
        clock.advance(FRESH_S)
        source.value = OSError("away")
        assert answers.get("a", PATIENCE_S) == Answer(1, source.value)

    def test_is_not_retried_before_its_own_time(
        self, answers: SingleFlight[str, int], source: Source, clock: FakeClock
    ) -> None:
        source.value = OSError("away")
        answers.get("a", PATIENCE_S)
        source.value = 1
        clock.advance(FAILURE_FRESH_S - 0.1)
        assert answers.get("a", PATIENCE_S).value is None
        clock.advance(0.1)
        assert answers.get("a", PATIENCE_S) == Answer(1)

    def test_timeout_is_reported_beside_the_last_answer(
        self, answers: SingleFlight[str, int], source: Source, clock: FakeClock
    ) -> None:
        answers.get("a", PATIENCE_S)
        clock.advance(FRESH_S)
        source.is_open.clear()
        answer = answers.get("a", 0)
        assert (answer.value, str(answer.error)) == (1, "not within 0 s")

    def test_crash_of_a_look_up_frees_its_callers_and_is_retried(
        self, answers: SingleFlight[str, int], source: Source
    ) -> None:
        source.value = ZeroDivisionError("a bug")
        with caught_crashes() as crashes:
            assert str(answers.get("a", PATIENCE_S).error) == "the look-up was interrupted"
        assert [type(crash) for crash in crashes] == [ZeroDivisionError]
        source.value = 1
        assert answers.get("a", PATIENCE_S) == Answer(1)


class TestClose:
    @pytest.mark.parametrize("has_begun", [True, False])
    def test_frees_every_caller(self, answers: SingleFlight[str, int], source: Source, has_begun: bool) -> None:
        source.is_open.clear()
        caller = gevent.spawn(answers.get, "a", PATIENCE_S)
        if has_begun:
            settle()
        else:
            gevent.sleep(0)
        answers.close()
        assert str(caller.get(timeout=10).error) == "the look-up was interrupted"
