"""The log has one line for each cause, not for each dial."""

import pytest

from pomagent.errors import GatewayTimedOut, GatewayUnreachable, RouteForbidden, TunnelError
from pomagent.gateway.failure_log import FailureLog

NAMED = {"gateway": "edge.example.com:443", "destination": "db.example.com:5432"}
REFUSED = GatewayUnreachable("connection refused", phase="tcp", **NAMED)
LOST = GatewayUnreachable("closed", phase="tls", **NAMED)
SILENT = GatewayTimedOut("no answer", phase="tls", **NAMED)
DENIED = RouteForbidden("refused with 403", status=403, **NAMED)


def news(failures: FailureLog, *errors: TunnelError) -> list[bool]:
    return [failures.is_news(error) for error in errors]


def test_the_first_of_each_cause_is_news():
    failures = FailureLog()
    assert news(failures, REFUSED, REFUSED, LOST, REFUSED, SILENT, DENIED, DENIED) == [
        True, False, True, False, True, True, False,
    ]  # fmt: skip
    assert failures.count == 7


def test_failure_after_a_success_is_news_again():
    failures = FailureLog()
    news(failures, REFUSED, DENIED)
    failures.accepted()
    assert news(failures, REFUSED, DENIED) == [True, True]
    assert failures.count == 2


def test_handshake_does_not_clear_connect_failures():
    failures = FailureLog()
    news(failures, REFUSED, DENIED)
    failures.secured()
    assert news(failures, REFUSED, DENIED) == [True, False]


@pytest.mark.parametrize(("error", "kind"), [(REFUSED, "gateway_unreachable"), (DENIED, "route_forbidden")])
def test_an_error_has_a_word_for_counters(error, kind):
    assert error.kind == kind
