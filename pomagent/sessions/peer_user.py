"""Who has connected: a number by the kernel's word, a name as soon as it is known; whether a route is for that user."""

from __future__ import annotations

from collections.abc import Sequence

from gevent import get_hub

from pomagent.sessions.client import Client
from pomagent.sessions.user_names import Users

OTHER_USER = "the route's allow_users does not name this user; add the user there, or connect as one who is named"
UNKNOWN_USER = (
    "the route has allow_users, and the kernel does not say who connects: somebody on another host or in another "
    "network namespace, or who has gone already; connect from this host, or empty allow_users"
)


class PeerUser:
    """The user behind one client.

    The kernel forgets whoever has gone, so that it is asked early; but first bytes that find a warm tunnel go before.
    """

    def __init__(self, client: Client, users: Users) -> None:
        self._unasked: Client | None = client
        self._users = users
        self._uid: int | None = None

    def identify_soon(self) -> None:
        """Ask the kernel as soon as the greenlet that runs now waits for anything. Does not block."""
        get_hub().loop.run_callback(self._identify)

    @property
    def uid(self) -> int | None:
        """None if the kernel does not tell."""
        if self._unasked is not None:
            self._identify()
        return self._uid

    @property
    def name(self) -> str | None:
        """None also if it is not known yet: nobody waits for it."""
        uid = self.uid
        return None if uid is None else self._users.name_if_known(uid)

    @property
    def fields(self) -> dict[str, object]:
        """For a line in the log."""
        name = self.name
        return {"uid": self.uid, **({"user": name} if name is not None else {})}

    def objection(self, allowed: Sequence[str]) -> str:
        """Why a route with this ``allow_users`` is not for the user, in a sentence; empty if it is. Blocks."""
        if not allowed or self._users.allows(allowed, self.uid):
            return ""
        if self.uid is None:
            return UNKNOWN_USER
        self._users.name(self.uid)  # the log is to say who it was, and nobody else is kept waiting by that
        return OTHER_USER

    def _identify(self) -> None:
        """Once, however often it is called."""
        client, self._unasked = self._unasked, None
        if client is not None:
            self._uid = client.user()
            self.name  # noqa: B018 - begins the look-up, which takes its time
