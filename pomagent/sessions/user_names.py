"""Looks up local users in threads: one look-up per user at a time, and a stale answer rather than none."""

from __future__ import annotations

import pwd
import time
from collections.abc import Callable, Sequence

from pomagent.runtime.deadline import Clock
from pomagent.runtime.single_flight import SingleFlight
from pomagent.runtime.threads import Threads

FRESH_S = 60.0
"""Seconds an answer of the user database is reused. The database may be a directory service on the network."""
THREADS = 2
"""Maximum look-ups at a time. A hanging look-up occupies one, and there are few users."""
LOOKUP_TIMEOUT_S = 3.0
"""Maximum seconds a client waits for a look-up that decides whether it is allowed."""

User = str | int
"""A name or a uid."""


class Users:
    """Names and uids of this host's users."""

    def __init__(self, clock: Clock = time.monotonic, look_up: Callable[[User], User | None] | None = None) -> None:
        """``look_up`` replaces the user database. It blocks, and raises OSError or ValueError."""
        threads = Threads(THREADS)
        look_up = look_up or (lambda user: threads.call(find_user, user))
        self._answers: SingleFlight[User, User | None] = SingleFlight(
            look_up, "look-up of user", FRESH_S, clock, failure_fresh_s=FRESH_S
        )

    def allows(self, allowed: Sequence[str], uid: int | None) -> bool:
        """Return whether a list of names and uids contains this user. An unknown user is never allowed. Blocks."""
        if uid is None:
            return False
        return str(uid) in allowed or any(self._find(name) == uid for name in allowed if not _is_number(name))

    def name(self, uid: int) -> str | None:
        """Return the user's name, or None without one. Blocks."""
        name = self._find(uid)
        return None if name is None else str(name)

    def name_if_known(self, uid: int) -> str | None:
        """Return the user's name if it is known by now, or start to look it up. Does not block."""
        name = self._answers.peek(uid)
        return None if name is None else str(name)

    def close(self) -> None:
        """End every look-up. Blocks."""
        self._answers.close()

    def _find(self, user: User) -> User | None:
        return self._answers.get(user, LOOKUP_TIMEOUT_S).value


def find_user(user: User) -> User | None:
    """Return the name of a uid, or the uid of a name. Blocks the thread. Raises OSError, ValueError."""
    try:
        return pwd.getpwnam(user).pw_uid if isinstance(user, str) else pwd.getpwuid(user).pw_name
    except KeyError:
        return None


def _is_number(user: str) -> bool:
    return user.isascii() and user.isdigit()
