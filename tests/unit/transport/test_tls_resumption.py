"""Which TLS session is offered for resumption, and for how long."""

import ssl
from types import SimpleNamespace
from typing import Any

import pytest

from pomagent.transport.tls_resumption import RELEARN_S, VERIFY_EVERY_S, TlsSessions

NOW = 1000.0


def stream(*, has_ticket: bool = True, was_resumed: bool = False, session: bool = True) -> Any:
    return SimpleNamespace(session=SimpleNamespace(has_ticket=has_ticket) if session else None, was_resumed=was_resumed)


def learned(*streams: Any) -> tuple[TlsSessions, ssl.SSLSession | None]:
    sessions = TlsSessions()
    for number, each in enumerate(streams):
        sessions.learn(each, NOW + number)
    return sessions, sessions.to_resume(NOW + len(streams))


def test_first_handshake_is_a_full_one() -> None:
    assert TlsSessions().to_resume(NOW) is None


def test_session_of_the_first_connection_serves_later_ones() -> None:
    first = stream()
    assert learned(first, stream())[1] is first.session


@pytest.mark.parametrize("useless", [{"has_ticket": False}, {"was_resumed": True}, {"session": False}])
def test_session_that_cannot_be_resumed_or_was_resumed_itself_is_not_learned(useless: dict[str, bool]) -> None:
    assert learned(stream(**useless))[1] is None


def test_certificate_is_verified_again_after_a_while() -> None:
    sessions, session = learned(stream())
    assert sessions.to_resume(NOW + VERIFY_EVERY_S - 0.1) is session
    assert sessions.to_resume(NOW + VERIFY_EVERY_S) is None
    sessions.learn(stream(was_resumed=True), NOW + VERIFY_EVERY_S)
    assert sessions.to_resume(NOW + VERIFY_EVERY_S) is None


def test_rejected_session_is_not_offered_again_and_another_is_learned_later() -> None:
    sessions, _ = learned(stream())
    sessions.rejected(NOW)
    assert sessions.to_resume(NOW + 1) is None
    sessions.learn(stream(), NOW + RELEARN_S - 0.1)
    assert sessions.to_resume(NOW + RELEARN_S) is None
    sessions.learn(stream(), NOW + RELEARN_S)
    assert sessions.to_resume(NOW + RELEARN_S) is not None
