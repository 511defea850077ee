"""Names and uids of users: lists of allowed users, and answers of a user database that may hang or fail."""

import os
import pwd
from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event

from pomagent.sessions import user_names as users_module
from pomagent.sessions.user_names import FRESH_S, Users
from tests.conftest import wait_until
from tests.fakes.clock import FakeClock
from tests.fakes.greenlets import settle

ME, MY_NAME = os.getuid(), pwd.getpwuid(os.getuid()).pw_name


class Directory:
    """A user database that the test fills, and can make hang or fail."""

    def __init__(self) -> None:
        self.entries: dict[str | int, str | int] = {"ann": 1001, 1001: "ann"}
        self.asked: list[str | int] = []
        self.is_up = Event()
        self.is_up.set()
        self.error: Exception | None = None

    def look_up(self, key: str | int) -> str | int | None:
        self.asked.append(key)
        self.is_up.wait()
        if self.error:
            raise self.error
        return self.entries.get(key)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
def users(clock: FakeClock, directory: Directory) -> Iterator[Users]:
    made = Users(clock, directory.look_up)
    yield made
    made.close()


def test_users_are_looked_up_in_the_real_user_database_by_default() -> None:
    users = Users()
    assert users.allows(["no-such-user-here", MY_NAME], ME)
    assert users.name(ME) == MY_NAME
    assert users.name(4_000_000_000) is None
    assert not users.allows(["no-such-user-here", "-1", "\0", "٣"], ME)
    users.close()


@pytest.mark.parametrize(
    ("allowed", "uid", "answer"),
    [
        (["ann"], 1001, True), (["1001"], 1001, True), (["bob", "ann"], 1001, True),
        (["ann"], 1002, False), (["1001"], 1002, False), (["bob"], 1001, False), ([], 1001, False),
        (["ann", "1001"], None, False), (["None"], None, False), (["root"], 0, False),
    ],
)  # fmt: skip
def test_allowed_users_may_be_names_and_uids(users: Users, allowed: list[str], uid: int | None, answer: bool) -> None:
    assert users.allows(allowed, uid) is answer


def test_uid_in_the_list_needs_no_look_up(users: Users, directory: Directory) -> None:
    assert users.allows(["ann", "1001"], 1001)
    assert directory.asked == []


def test_name_is_known_soon_after_the_first_request(users: Users) -> None:
    assert users.name_if_known(1001) is None
    settle()
    assert users.name_if_known(1001) == "ann"


def test_one_look_up_serves_all_callers_and_its_answer_is_reused(
    users: Users, directory: Directory, clock: FakeClock
) -> None:
    callers = [gevent.Greenlet.spawn(users.allows, ["ann"], 1001) for _ in range(5)]
    assert [caller.get() for caller in callers] == [True] * 5
    assert directory.asked == ["ann"]
    clock.advance(FRESH_S - 1)
    assert users.allows(["ann"], 1001)
    assert directory.asked == ["ann"]
    directory.entries["ann"] = 1002
    clock.advance(1)
    assert not users.allows(["ann"], 1001)
    assert directory.asked == ["ann", "ann"]


def test_hanging_database_costs_a_bounded_wait_and_the_last_answer_stays_valid(
    users: Users, directory: Directory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users_module, "LOOKUP_TIMEOUT_S", 0.01)
    assert users.allows(["ann"], 1001)
    directory.is_up.clear()
    clock.advance(FRESH_S)
    assert users.allows(["ann"], 1001)
    assert not users.allows(["bob"], 1001)
    assert users.name_if_known(1001) is None
    directory.entries["bob"] = 1001
    directory.is_up.set()
    wait_until(lambda: users.allows(["bob"], 1001))


@pytest.mark.parametrize("error", [OSError("the directory is unreachable"), ValueError("no name")])
def test_failing_database_leaves_the_last_answer_valid(
    users: Users, directory: Directory, clock: FakeClock, error: Exception
) -> None:
    assert users.name(1001) == "ann"
    directory.error = error
    clock.advance(FRESH_S)
    assert users.name(1001) == "ann"
    assert users.name(1002) is None
