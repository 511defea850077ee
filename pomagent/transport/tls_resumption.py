"""Resumes TLS sessions with a party that was verified recently, for short handshakes (RFC 8446 §2.2)."""

from __future__ import annotations

import ssl
from typing import Protocol

VERIFY_EVERY_S = 600.0
"""Maximum seconds a session is resumed. Then a full handshake verifies the certificate, which resumption skips."""
RELEARN_S = 10.0
"""Seconds without a session after one was rejected.

Behind a load balancer each gateway may accept its own sessions only, and then learning one never pays.
"""


class Resumable(Protocol):
    """A connection with a session that may be resumed: ``tls_stream.TlsStream``."""

    @property
    def session(self) -> ssl.SSLSession | None: ...
    @property
    def was_resumed(self) -> bool: ...


class TlsSessions:
    """The last session with one party, under one trust and one name. It must not be offered to another party."""

    def __init__(self) -> None:
        self._session: ssl.SSLSession | None = None
        self._learned_at = 0.0
        self._learn_from = float("-inf")

    def to_resume(self, now: float) -> ssl.SSLSession | None:
        """Return the session to offer in the next handshake, or None for a full handshake."""
        if self._session is not None and now - self._learned_at >= VERIFY_EVERY_S:
            self._session = None
        return self._session

    def learn(self, stream: Resumable, now: float) -> None:
        """Keep the session of a connection that has received bytes: its ticket arrives before them.

        A resumed session is not kept, or a certificate would be verified only once. Extracting a session costs as much
        as a handshake, so one serves many connections.
        """
        if self.to_resume(now) is not None or stream.was_resumed or now < self._learn_from:
            return
        session = stream.session
        if session is not None and session.has_ticket:
            self._session, self._learned_at = session, now

    def rejected(self, now: float) -> None:
        """Forget a session that did not shorten the handshake: the party is another, or has another certificate."""
        self._session, self._learn_from = None, now + RELEARN_S
