"""Short handshakes with a party that was verified a moment ago: resumption of TLS sessions (RFC 8446 §2.2)."""

from __future__ import annotations

import ssl
from typing import Protocol

VERIFY_EVERY_S = 600.0
"""A resumed session shows no certificate: after so long a whole handshake looks at it again."""


LEARN_AGAIN_S = 10.0
"""After a session was refused: behind a balancer each gateway may know its own only, and none is worth its price."""


class Resumable(Protocol):
    """A connection whose session may be resumed: ``tls_stream.TlsStream``."""

    @property
    def session(self) -> ssl.SSLSession | None: ...
    @property
    def was_resumed(self) -> bool: ...


class TlsSessions:
    """The last session with one party, under one trust and one name: never to be offered to another."""

    def __init__(self) -> None:
        self._session: ssl.SSLSession | None = None
        self._learned_at = 0.0
        self._learn_from = float("-inf")

    def to_resume(self, now: float) -> ssl.SSLSession | None:
        """What to offer in the next handshake; None for a whole one."""
        if self._session is not None and now - self._learned_at >= VERIFY_EVERY_S:
            self._session = None
        return self._session

    def learn(self, stream: Resumable, now: float) -> None:
        """Take the session of a connection over which something was received: a ticket comes before that.

        Not one that was resumed itself, or a certificate would be looked at only once. It costs as much as a handshake
        to take one, so that one serves many connections.
        """
        if self.to_resume(now) is not None or stream.was_resumed or now < self._learn_from:
            return
        session = stream.session
        if session is not None and session.has_ticket:
            self._session, self._learned_at = session, now

    def refused(self, now: float) -> None:
        """What was offered did not make the handshake a short one: it has another certificate, or is another."""
        self._session, self._learn_from = None, now + LEARN_AGAIN_S
