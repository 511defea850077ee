"""Names and numbers of users."""

from __future__ import annotations

from pomagent.local_user import uids_of


def test_users_are_named_or_numbered_and_unknown_names_are_nobody() -> None:
    assert uids_of(["root", "4711", "no-such-user-here", "-1", "٣"]) == {0, 4711}
