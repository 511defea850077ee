"""Sessions are admitted up to the limit, in order of arrival, and no admission is ever lost."""

import gevent
import pytest

from pomagent.sessions import session_limit as module
from pomagent.sessions.session_limit import SessionLimit
from tests.fakes.greenlets import settle

FOREVER_S = 3600.0


class Clients:
    """Clients that ask for admission and stay."""

    def __init__(self, session_limit: SessionLimit) -> None:
        self.session_limit = session_limit
        self.admitted: list[str] = []
        self.greenlets: dict[str, gevent.Greenlet] = {}

    def arrive(self, *names: str) -> None:
        for name in names:
            self.greenlets[name] = gevent.spawn(self._arrive, name)
        settle()

    def leave(self, *names: str) -> None:
        for name in names:
            self.greenlets[name].kill(block=False)
        settle()

    def _arrive(self, name: str) -> None:
        if self.session_limit.acquire(FOREVER_S):
            self.admitted.append(name)


@pytest.fixture
def session_limit():
    return SessionLimit(2)


@pytest.fixture
def clients(session_limit):
    clients = Clients(session_limit)
    yield clients
    gevent.killall(list(clients.greenlets.values()))


def test_sessions_up_to_the_limit_are_admitted_at_once(session_limit):
    assert [session_limit.acquire(0), session_limit.acquire(0)] == [True, True]
    assert session_limit.admitted_count == 2


def test_session_over_the_limit_is_refused_after_the_timeout(session_limit):
    session_limit.acquire(0)
    session_limit.acquire(0)
    assert session_limit.acquire(0) is False
    assert session_limit.admitted_count == 2


def test_limit_of_zero_admits_no_session():
    assert SessionLimit(0).acquire(0) is False


def test_release_admits_the_client_that_has_waited_longest(session_limit, clients):
    clients.arrive("a", "b", "c", "d")
    assert clients.admitted == ["a", "b"]
    session_limit.release()
    settle()
    assert clients.admitted == ["a", "b", "c"]
    session_limit.release()
    settle()
    assert clients.admitted == ["a", "b", "c", "d"]
    assert session_limit.admitted_count == 2


def test_new_client_does_not_overtake_waiting_clients(session_limit, clients):
    clients.arrive("a", "b", "c")
    session_limit.release()  # "c" is admitted but has not run yet
    assert session_limit.acquire(0) is False
    settle()
    assert clients.admitted == ["a", "b", "c"]


def test_larger_limit_admits_waiting_clients(session_limit, clients):
    clients.arrive("a", "b", "c", "d", "e")
    session_limit.resize(4)
    settle()
    assert clients.admitted == ["a", "b", "c", "d"]


def test_smaller_limit_ends_no_session_and_admits_none(session_limit, clients):
    clients.arrive("a", "b", "c")
    session_limit.resize(1)
    session_limit.release()
    settle()
    assert clients.admitted == ["a", "b"]
    assert session_limit.admitted_count == 1
    session_limit.release()
    settle()
    assert clients.admitted == ["a", "b", "c"]


def test_killed_waiter_is_skipped(session_limit, clients):
    clients.arrive("a", "b", "c", "d")
    clients.leave("c")
    session_limit.release()
    settle()
    assert clients.admitted == ["a", "b", "d"]


def test_waiter_killed_at_its_admission_passes_it_on(session_limit, clients):
    clients.arrive("a", "b", "c", "d")
    clients.greenlets["c"].kill(block=False)
    session_limit.release()
    settle()
    assert clients.admitted == ["a", "b", "d"]
    assert session_limit.admitted_count == 2


def test_waiter_that_timed_out_leaves_no_trace(session_limit, clients):
    clients.arrive("a", "b")
    session_limit.acquire(0)
    session_limit.release()
    assert session_limit.admitted_count == 1
    assert session_limit.acquire(0) is True


@pytest.mark.parametrize(("waiting", "may_wait"), [(2, True), (3, False)])
def test_client_beyond_the_waiting_limit_is_refused_at_once(waiting, may_wait, session_limit, clients, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    clients.arrive("a", "b", *(f"w{index}" for index in range(waiting)))
    clients.arrive("one more")
    assert bool(clients.greenlets["one more"]) is may_wait  # still waiting


def test_limit_is_overrun_from_the_first_refusal_until_it_is_no_longer_reached(session_limit, clients):
    clients.arrive("a", "b")
    assert not session_limit.is_overrun
    session_limit.acquire(0)
    assert session_limit.is_overrun
    clients.arrive("c")
    session_limit.release()
    assert session_limit.is_overrun, "the waiting client was admitted"
    session_limit.release()
    assert not session_limit.is_overrun


def test_reason_names_the_setting_and_its_value():
    assert SessionLimit(7, "agent.max_sessions").why_full.startswith(
        "agent.max_sessions = 7 is reached; raise it, or list "
    )
