"""So many at a time, in the order of asking, and no place is ever lost."""

import gevent
import pytest

from pomagent.sessions import session_limit as module
from pomagent.sessions.session_limit import SessionLimit
from tests.fakes.greenlets import settle

FOREVER_S = 3600.0


class Guests:
    """Clients that ask for a place and keep it."""

    def __init__(self, session_limit: SessionLimit) -> None:
        self.session_limit = session_limit
        self.seated: list[str] = []
        self.greenlets: dict[str, gevent.Greenlet] = {}

    def come(self, *names: str) -> None:
        for name in names:
            self.greenlets[name] = gevent.spawn(self._come, name)
        settle()

    def leave(self, *names: str) -> None:
        for name in names:
            self.greenlets[name].kill(block=False)
        settle()

    def _come(self, name: str) -> None:
        if self.session_limit.take(FOREVER_S):
            self.seated.append(name)


@pytest.fixture
def session_limit():
    return SessionLimit(2)


@pytest.fixture
def guests(session_limit):
    guests = Guests(session_limit)
    yield guests
    gevent.killall(list(guests.greenlets.values()))


def test_places_up_to_the_limit_are_given_at_once(session_limit):
    assert [session_limit.take(0), session_limit.take(0)] == [True, True]
    assert session_limit.taken == 2


def test_over_the_limit_the_answer_is_no_once_the_time_is_over(session_limit):
    session_limit.take(0)
    session_limit.take(0)
    assert session_limit.take(0) is False
    assert session_limit.taken == 2


def test_no_place_at_all_is_a_limit_too():
    assert SessionLimit(0).take(0) is False


def test_a_place_given_back_goes_to_whoever_asked_first(session_limit, guests):
    guests.come("a", "b", "c", "d")
    assert guests.seated == ["a", "b"]
    session_limit.give_back()
    settle()
    assert guests.seated == ["a", "b", "c"]
    session_limit.give_back()
    settle()
    assert guests.seated == ["a", "b", "c", "d"]
    assert session_limit.taken == 2


def test_nobody_overtakes_those_who_wait(session_limit, guests):
    guests.come("a", "b", "c")
    session_limit.give_back()  # "c" is called but has not run yet
    assert session_limit.take(0) is False
    settle()
    assert guests.seated == ["a", "b", "c"]


def test_a_larger_limit_lets_the_waiting_in(session_limit, guests):
    guests.come("a", "b", "c", "d", "e")
    session_limit.resize(4)
    settle()
    assert guests.seated == ["a", "b", "c", "d"]


def test_a_smaller_limit_takes_no_place_away_and_gives_none_out(session_limit, guests):
    guests.come("a", "b", "c")
    session_limit.resize(1)
    session_limit.give_back()
    settle()
    assert guests.seated == ["a", "b"]
    assert session_limit.taken == 1
    session_limit.give_back()
    settle()
    assert guests.seated == ["a", "b", "c"]


def test_a_waiter_that_was_killed_is_skipped(session_limit, guests):
    guests.come("a", "b", "c", "d")
    guests.leave("c")
    session_limit.give_back()
    settle()
    assert guests.seated == ["a", "b", "d"]


def test_a_waiter_that_is_killed_just_as_it_is_called_passes_its_place_on(session_limit, guests):
    guests.come("a", "b", "c", "d")
    guests.greenlets["c"].kill(block=False)
    session_limit.give_back()
    settle()
    assert guests.seated == ["a", "b", "d"]
    assert session_limit.taken == 2


def test_a_waiter_whose_time_was_over_leaves_no_trace(session_limit, guests):
    guests.come("a", "b")
    session_limit.take(0)
    session_limit.give_back()
    assert session_limit.taken == 1
    assert session_limit.take(0) is True


@pytest.mark.parametrize(("waiting", "may_wait"), [(2, True), (3, False)])
def test_beyond_so_many_waiting_the_answer_is_no_at_once(waiting, may_wait, session_limit, guests, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    guests.come("a", "b", *(f"w{index}" for index in range(waiting)))
    guests.come("one more")
    assert bool(guests.greenlets["one more"]) is may_wait  # still waiting


def test_it_is_overrun_from_the_first_no_until_a_place_is_free(session_limit, guests):
    guests.come("a", "b")
    assert not session_limit.is_overrun
    session_limit.take(0)
    assert session_limit.is_overrun
    guests.come("c")
    session_limit.give_back()
    assert session_limit.is_overrun, "who waited has the place"
    session_limit.give_back()
    assert not session_limit.is_overrun


def test_why_it_is_full_names_the_setting_and_its_value():
    assert SessionLimit(7, "agent.max_sessions").why_full.startswith(
        "agent.max_sessions = 7 is reached; raise it, or see "
    )
