"""Identifies a client's user, and decides whether a route is for that user."""

from __future__ import annotations

from collections.abc import Sequence

from gevent import get_hub

from pomagent.sessions.client import Client
from pomagent.sessions.user_names import Users

OTHER_USER = "the route's allow_users does not name this user; add the user there, or connect as a user it names"
UNKNOWN_USER = (
    "the route has allow_users, and the kernel reports no user for this client: it is on another host or in another "
    "network namespace, or has left already; connect from this host, or empty allow_users"
)


class PeerUser:
    """The user of one client.

    The kernel forgets the user of a client that has left, so it is asked early, but only after the client's first
    bytes went to a warm tunnel.
    """

    def __init__(self, client: Client, users: Users) -> None:
        self._unasked: Client | None = client
        self._users = users
        self._uid: int | None = None

    def identify_soon(self) -> None:
        """Ask the kernel once the running greenlet waits. Does not block."""
        get_hub().loop.run_callback(self._identify)

    @property
    def uid(self) -> int | None:
        """The uid, or None if the kernel reports none."""
        if self._unasked is not None:
            self._identify()
        return self._uid

    @property
    def name(self) -> str | None:
        """The user's name, or None while it is unknown. Never waits for a look-up."""
        uid = self.uid
        return None if uid is None else self._users.name_if_known(uid)

    @property
    def fields(self) -> dict[str, object]:
        """The user as fields of a log line."""
        name = self.name
        return {"uid": self.uid, **({"user": name} if name is not None else {})}

    def objection(self, allowed: Sequence[str]) -> str:
        """Return why a route with this ``allow_users`` refuses the user, or empty if it accepts the user. Blocks."""
        if not allowed or self._users.allows(allowed, self.uid):
            return ""
        if self.uid is None:
            return UNKNOWN_USER
        self._users.name(self.uid)  # wait, so that the log line names the user. Only this client is delayed
        return OTHER_USER

    def _identify(self) -> None:
        """Ask the kernel. Does nothing the second time."""
        client, self._unasked = self._unasked, None
        if client is not None:
            self._uid = client.user()
            self.name  # noqa: B018 - starts the look-up, which takes time
