"""When the kernel is asked who has connected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from pomagent.sessions.peer_user import OTHER_USER, UNKNOWN_USER, PeerUser
from pomagent.sessions.user_names import Users


class Asked:
    """A client that counts how often it is asked whose it is."""

    def __init__(self, uid: int | None) -> None:
        self.uid = uid
        self.times = 0

    def user(self) -> int | None:
        self.times += 1
        return self.uid


@pytest.fixture
def client() -> Asked:
    return Asked(0)


@pytest.fixture
def users() -> Iterator[Users]:
    users = Users()
    yield users
    users.close()


@pytest.fixture
def caller(client: Any, users: Users) -> PeerUser:
    return PeerUser(client, users)


def test_it_is_not_asked_before_the_greenlet_waits(caller: PeerUser, client: Asked) -> None:
    caller.identify_soon()
    assert client.times == 0
    gevent.sleep(0)
    assert client.times == 1


def test_it_is_asked_at_once_if_somebody_wants_to_know(caller: PeerUser, client: Asked) -> None:
    caller.identify_soon()
    assert (caller.uid, client.times) == (0, 1)


def test_it_is_asked_once(caller: PeerUser, client: Asked) -> None:
    caller.identify_soon()
    assert [caller.fields["uid"] for _ in range(3)] == [0, 0, 0]
    gevent.sleep(0)
    assert client.times == 1


def test_who_is_unknown_is_not_asked_again(client: Asked, caller: PeerUser) -> None:
    client.uid = None
    assert (caller.uid, caller.uid, client.times) == (None, None, 1)


def test_a_route_for_everybody_asks_nobody(caller: PeerUser, client: Asked) -> None:
    assert (caller.objection(()), client.times) == ("", 0)


@pytest.mark.parametrize(("uid", "why"), [(0, ""), (4711, OTHER_USER), (None, UNKNOWN_USER)])
def test_a_route_for_some_lets_them_in(client: Asked, caller: PeerUser, uid: int | None, why: str) -> None:
    client.uid = uid
    assert caller.objection(("0",)) == why
