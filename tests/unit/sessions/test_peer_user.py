"""When the kernel is asked for a client's user, and which users a route accepts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from pomagent.sessions.peer_user import OTHER_USER, UNKNOWN_USER, PeerUser
from pomagent.sessions.user_names import Users


class CountingClient:
    """A client that counts the queries for its user."""

    def __init__(self, uid: int | None) -> None:
        self.uid = uid
        self.query_count = 0

    def user(self) -> int | None:
        self.query_count += 1
        return self.uid


@pytest.fixture
def client() -> CountingClient:
    return CountingClient(0)


@pytest.fixture
def users() -> Iterator[Users]:
    users = Users()
    yield users
    users.close()


@pytest.fixture
def user(client: Any, users: Users) -> PeerUser:
    return PeerUser(client, users)


def test_kernel_is_not_asked_before_the_greenlet_waits(user: PeerUser, client: CountingClient) -> None:
    user.identify_soon()
    assert client.query_count == 0
    gevent.sleep(0)
    assert client.query_count == 1


def test_kernel_is_asked_at_once_when_the_uid_is_needed(user: PeerUser, client: CountingClient) -> None:
    user.identify_soon()
    assert (user.uid, client.query_count) == (0, 1)


def test_kernel_is_asked_once(user: PeerUser, client: CountingClient) -> None:
    user.identify_soon()
    assert [user.fields["uid"] for _ in range(3)] == [0, 0, 0]
    gevent.sleep(0)
    assert client.query_count == 1


def test_kernel_is_not_asked_again_for_an_unknown_user(client: CountingClient, user: PeerUser) -> None:
    client.uid = None
    assert (user.uid, user.uid, client.query_count) == (None, None, 1)


def test_route_without_allow_users_asks_no_kernel(user: PeerUser, client: CountingClient) -> None:
    assert (user.objection(()), client.query_count) == ("", 0)


@pytest.mark.parametrize(("uid", "why"), [(0, ""), (4711, OTHER_USER), (None, UNKNOWN_USER)])
def test_route_with_allow_users_accepts_only_them(
    client: CountingClient, user: PeerUser, uid: int | None, why: str
) -> None:
    client.uid = uid
    assert user.objection(("0",)) == why
