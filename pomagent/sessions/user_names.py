"""Names of local users, off the hub: a look-up for each at a time, and a stale answer rather than none."""

from __future__ import annotations

import pwd
import time
from collections.abc import Sequence
from dataclasses import dataclass

import gevent
from gevent.pool import Group

from pomagent.runtime.deadline import Clock
from pomagent.runtime.threads import Threads

FRESH_S = 60.0
"""For an answer of the user database, which may be a directory service on the network."""
THREADS = 2
"""A hanging look-up holds one; users are few."""
LOOKUP_TIMEOUT_S = 3.0
"""For whoever cannot go on without the answer."""


@dataclass(slots=True)
class _Known:
    """What the user database has said of a name or a number; None: nobody has it, or nothing was said yet."""

    answer: str | int | None = None
    at: float = float("-inf")
    pending: gevent.Greenlet | None = None


class Users:
    """Who is who among the users of this host."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str | int, _Known] = {}
        self._threads = Threads(THREADS)
        self._group = Group()

    def allows(self, allowed: Sequence[str], uid: int | None) -> bool:
        """Whether a list of names and numbers has the user; nobody knows who None is. Blocks."""
        if uid is None:
            return False
        return str(uid) in allowed or any(self._ask(name) == uid for name in allowed if not _is_number(name))

    def name(self, uid: int) -> str | None:
        """The user's name, None if there is none. Blocks."""
        answer = self._ask(uid)
        return None if answer is None else str(answer)

    def name_if_known(self, uid: int) -> str | None:
        """The user's name if it is known by now; the first question makes it known a moment later. Does not block."""
        known = self._known.get(uid) or self._known.setdefault(uid, _Known())
        self._refresh(uid, known)
        return None if known.answer is None else str(known.answer)

    def close(self) -> None:
        self._group.kill()

    def _ask(self, key: str | int) -> str | int | None:
        known = self._known.setdefault(key, _Known())
        pending = self._refresh(key, known)
        if pending is not None:
            pending.join(LOOKUP_TIMEOUT_S)
        return known.answer

    def _refresh(self, key: str | int, known: _Known) -> gevent.Greenlet | None:
        """See that the answer is being looked up if it is not fresh, and by whom."""
        if known.pending is None and self._clock() - known.at >= FRESH_S:
            known.pending = self._group.spawn(self._look_up, key, known)
            known.pending.name = f"look-up of user {key}"
        return known.pending

    def _look_up(self, key: str | int, known: _Known) -> None:
        try:
            known.answer = self._threads.call(_find, key)
            known.at = self._clock()
        except (OSError, ValueError):  # ValueError: no name or number that a user can have
            known.at = self._clock()  # the last answer goes on
        finally:
            known.pending = None


def _find(key: str | int) -> str | int | None:
    """The name of a number, or the number of a name. Blocks."""
    try:
        return pwd.getpwnam(key).pw_uid if isinstance(key, str) else pwd.getpwuid(key).pw_name
    except KeyError:
        return None


def _is_number(user: str) -> bool:
    return user.isascii() and user.isdigit()
