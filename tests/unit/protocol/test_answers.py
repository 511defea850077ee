"""Every answer other than a tunnel leads to a decision and a remedy."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from pomagent.errors import (
    BearerForbidden,
    CredentialRejected,
    DestinationDown,
    GatewayMisbehaved,
    GatewayOverloaded,
    GatewayRefused,
    OutageInFront,
    Recovery,
    RequestRefused,
    RouteForbidden,
    RouteUnknown,
    TunnelError,
)
from pomagent.protocol.answers import ROWS, refusal
from pomagent.protocol.connect import Answer, ConnectRequest, Exchange

INTERCEPTED = {"x-pomerium-intercepted-response": "true", "content-type": "text/html; charset=UTF-8"}
REJECTED = Answer(401, {}, b'{"error":"Unauthenticated","request_id":"c0ffee"}')
PAGE = b"<!DOCTYPE html><html><body>Pomerium <b>says</b> no</body></html>"


def pomeriums(error: str) -> bytes:
    return json.dumps({"error": error, "request_id": "c0ffee"}).encode()


def envoys(status: int, details: str) -> bytes:
    return json.dumps({"requestId": "c0ffee", "status": status, "statusText": details}).encode()


def answer(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
    return Answer(status, headers or {}, body)


def error_for(answer: Answer, credential: str | None = "default") -> TunnelError:
    return refusal(answer, gateway="edge.example.com:443", destination="db.example.com:5432", credential=credential)


# One answer for each row of the table, by the row's meaning.
ANSWERS = {
    "not logged in": answer(401, {"location": "/.pomerium/sign_in?x=y"}, pomeriums("Unauthenticated")),
    "the policy denies this credential": answer(403, body=pomeriums("Forbidden")),
    "the route does not take CONNECT": answer(403, {"server": "envoy"}),
    "the gateway is still loading this route": answer(404, body=pomeriums("Not Found")),
    "the gateway has no TCP route for this host and port": answer(404, body=envoys(404, "route_not_found")),
    "the route has reached the gateway's connection limit": answer(503, {"x-envoy-overloaded": "true"}),
    "the gateway cannot reach the route's server": answer(503, body=envoys(503, "no_healthy_upstream")),
    "the gateway's authorize service does not answer": answer(503, {"content-length": "0"}),
    "the gateway cannot serve the route now": answer(503, body=b"maintenance"),
    "the gateway timed out on the request": answer(408, body=b"request timeout"),
    "the gateway limits the rate of requests": answer(429),
    "the gateway cannot parse the destination": answer(400, body=b"Bad Request"),
    "the gateway rejects this request": answer(431),
    "the policy requires an enrolled device": answer(450),
    "the gateway requires a client certificate": answer(495),
    "the gateway does not implement CONNECT": answer(501),
}


def test_every_row_has_an_answer_here_and_every_answer_a_row():
    assert [row.meaning for row in ROWS] == list(ANSWERS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.meaning)
def test_each_row_decides_on_its_answer(row):
    given = ANSWERS[row.meaning]
    error = error_for(given)
    assert [row] == [r for r in ROWS if given.status in r.statuses and r.when(given)][:1]
    assert type(error) is row.error
    what = f"{row.meaning}; {row.remedy}" if row.remedy else 'the credential "default" is expired'
    assert str(error).startswith(f"db.example.com:5432: {what}")
    assert f" ({given.status} from edge.example.com:443" in str(error)


@pytest.mark.parametrize(
    ("row", "status"),
    [pytest.param(row, status, id=f"{row.meaning}-{status}") for row in ROWS for status in sorted(row.statuses)],
)
def test_each_status_of_a_row_is_decided_by_it(row, status):
    given = ANSWERS[row.meaning]
    error = error_for(Answer(status, given.headers, given.body))
    assert type(error) is row.error
    assert row.remedy in str(error)


def test_no_row_is_hidden_behind_an_earlier_one():
    assert len({(row.meaning, row.statuses) for row in ROWS}) == len(ROWS)
    deciding = [next(r for r in ROWS if a.status in r.statuses and r.when(a)) for a in ANSWERS.values()]
    assert deciding == list(ROWS)


@dataclass(frozen=True)
class Documented:
    """A row of wire contract §3.2: what arrives, and what the agent makes of it."""

    status: str
    error: type[TunnelError]
    recovery: Recovery
    remedy: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def answer(self) -> Answer:
        """As the exchange reads it from the wire, where every refusal closes."""
        headers = {"server": "envoy", "x-request-id": "c0ffee", "content-length": str(len(self.body)), **self.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        wire = f"HTTP/1.1 {self.status}\r\n{head}connection: close\r\n\r\n".encode() + self.body
        found = Exchange(ConnectRequest("db.example.com:5432", {})).receive(wire)
        assert found is not None
        return found


SIGN_IN = {"location": "https://auth.example.com/.pomerium/sign_in?pomerium_expiry=1", **INTERCEPTED}
RESET = "upstream_reset_before_response_started"
WIRE = {
    "302, no token or an old server": Documented(
        "302 Found", CredentialRejected, Recovery.REAUTHENTICATE, "replace its token", SIGN_IN, PAGE
    ),
    "301": Documented("301 Moved Permanently", CredentialRejected, Recovery.REAUTHENTICATE, "replace its", SIGN_IN),
    "307": Documented("307 Temporary Redirect", CredentialRejected, Recovery.REAUTHENTICATE, "replace its", SIGN_IN),
    "308": Documented("308 Permanent Redirect", CredentialRejected, Recovery.REAUTHENTICATE, "replace its", SIGN_IN),
    "401 as JSON": Documented(
        "401 Unauthorized", CredentialRejected, Recovery.REAUTHENTICATE, "replace its token",
        body=pomeriums("Unauthenticated"),
    ),
    "401 as HTML": Documented(
        "401 Unauthorized", CredentialRejected, Recovery.REAUTHENTICATE, "replace its token", INTERCEPTED, PAGE
    ),
    "403 by the policy, as HTML": Documented(
        "403 Forbidden", RouteForbidden, Recovery.OPERATOR, "allow its user in the route's policy", INTERCEPTED, PAGE
    ),
    "403 by the policy, as JSON": Documented(
        "403 Forbidden", RouteForbidden, Recovery.OPERATOR, "allow its user in the route's policy",
        body=pomeriums("Forbidden"),
    ),
    "403, CONNECT not enabled": Documented(
        "403 Forbidden", RequestRefused, Recovery.OPERATOR, "a tcp+https:// URL"
    ),
    "404 from Envoy": Documented(
        "404 Not Found", RouteUnknown, Recovery.OPERATOR, 'compare "from" with the gateway\'s routes, port included',
        body=envoys(404, "route_not_found"),
    ),
    "404 from Envoy, bare": Documented("404 Not Found", RouteUnknown, Recovery.OPERATOR, "port included"),
    "404 from authorize, as HTML": Documented(
        "404 Not Found", DestinationDown, Recovery.RETRY, "the agent retries", INTERCEPTED, PAGE
    ),
    "404 from authorize, as JSON": Documented(
        "404 Not Found", DestinationDown, Recovery.RETRY, "the agent retries", body=pomeriums("Not Found")
    ),
    "400": Documented(
        "400 Bad Request", RequestRefused, Recovery.OPERATOR, 'check host and port of "from"',
        {"content-type": "text/plain"}, b"Bad Request",
    ),
    "408": Documented(
        "408 Request Timeout", GatewayOverloaded, Recovery.RETRY, "the agent retries", body=b"request timeout"
    ),
    "426": Documented("426 Upgrade Required", RequestRefused, Recovery.OPERATOR, "look for a proxy in front of it"),
    "431": Documented("431 Too Large", RequestRefused, Recovery.OPERATOR, "look for a proxy in front of it"),
    "501": Documented("501 Not Implemented", RequestRefused, Recovery.OPERATOR, "look for a proxy"),
    "450": Documented("450 Device", RequestRefused, Recovery.OPERATOR, "enrol one, or change the policy", INTERCEPTED),
    "495": Documented(
        "495 Certificate", RequestRefused, Recovery.OPERATOR, "set client_cert_file and client_key_file", INTERCEPTED
    ),
    "503 UF, refused": Documented(
        "503 Service Unavailable", DestinationDown, Recovery.RETRY, 'start it, or mend the route\'s "to"',
        body=envoys(503, RESET + "{remote_connection_failure|delayed_connect_error:_Connection_refused}"),
    ),
    "503 UF, timeout": Documented(
        "503 Service Unavailable", DestinationDown, Recovery.RETRY, "start it, or mend",
        body=envoys(503, RESET + "{connection_timeout}"),
    ),
    "503 UH": Documented(
        "503 Service Unavailable", DestinationDown, Recovery.RETRY, "start it, or mend",
        body=envoys(503, "no_healthy_upstream"),
    ),
    "503 UO": Documented(
        "503 Service Unavailable", GatewayOverloaded, Recovery.RETRY, "raise its circuit_breaker_thresholds",
        {"x-envoy-overloaded": "true"}, envoys(503, RESET + "{overflow}"),
    ),
    "503 UO, without its header": Documented(
        "503 Service Unavailable", GatewayOverloaded, Recovery.RETRY, "raise its circuit_breaker_thresholds",
        body=envoys(503, RESET + "{overflow}"),
    ),
    "503 UAEX": Documented(
        "503 Service Unavailable", GatewayOverloaded, Recovery.RETRY,
        "check the gateway's authorize and databroker services",
    ),
    "302 to a maintenance page": Documented(
        "302 Found", OutageInFront, Recovery.RETRY, "redirects to https://down.example.com/",
        {"location": "https://down.example.com/?back=/.pomerium/sign_in"}, PAGE,
    ),
    "307 without a Location": Documented(
        "307 Temporary Redirect", OutageInFront, Recovery.RETRY, "redirects without a Location"
    ),
    "308 to another name": Documented(
        "308 Permanent Redirect", OutageInFront, Recovery.RETRY, "redirects to https://new.example.com",
        {"location": "https://new.example.com"},
    ),
    "401 of a balancer": Documented(
        "401 Unauthorized", OutageInFront, Recovery.RETRY, "demands a login of its own",
        {"www-authenticate": 'Basic realm="lb"'}, PAGE,
    ),
    "403 of a firewall": Documented(
        "403 Forbidden", OutageInFront, Recovery.RETRY, "forbids the request; allow CONNECT", {"server": "fw"}, PAGE
    ),
    "502": Documented("502 Bad Gateway", GatewayOverloaded, Recovery.RETRY, "the agent retries", body=PAGE),
    "504": Documented("504 Gateway Timeout", GatewayOverloaded, Recovery.RETRY, "the agent retries", body=PAGE),
    "429": Documented(
        "429 Too Many Requests", GatewayOverloaded, Recovery.RETRY, "the agent retries later", {"retry-after": "17"}
    ),
    "200 with a content type": Documented(
        "200 OK", GatewayMisbehaved, Recovery.RETRY, "pass TCP through", {"content-type": "text/html"}
    ),
    "200 with a length": Documented("200 OK", GatewayMisbehaved, Recovery.RETRY, "pass TCP through", body=PAGE),
}  # fmt: skip


@pytest.mark.parametrize("claim", WIRE)
def test_each_documented_answer_leads_to_its_decision(claim):
    documented = WIRE[claim]
    error = error_for(documented.answer)
    assert type(error) is documented.error
    assert error.recovery is documented.recovery
    assert documented.remedy in str(error)
    assert error.status == documented.answer.status
    assert error.request_id == "c0ffee"
    assert error.phase == "connect"


@pytest.mark.parametrize("claim", WIRE)
def test_no_message_shows_a_page_or_more_than_a_line(claim):
    message = str(error_for(WIRE[claim].answer))
    assert "<" not in message
    assert message.isprintable()


class TestAnythingElse:
    @pytest.mark.parametrize("status", [500, 505, 520, 599, 999])
    def test_other_5xx_is_retried(self, status):
        error = error_for(answer(status))
        assert type(error) is GatewayOverloaded
        assert "the gateway or a balancer in front of it fails" in str(error)

    @pytest.mark.parametrize("status", [300, 304, 402, 405, 407, 418, 451, 499])
    def test_unknown_status_needs_an_operator(self, status):
        error = error_for(answer(status))
        assert type(error) is RequestRefused
        assert "Pomerium gives no such answer" in str(error)

    @pytest.mark.parametrize("status", range(300, 1000, 7))
    def test_every_status_has_a_sentence(self, status):
        error = error_for(answer(status))
        assert isinstance(error, GatewayRefused)
        assert str(status) in str(error)


class TestSentences:
    def test_refusal_leads_with_cause_and_remedy(self):
        assert str(error_for(WIRE["503 UH"].answer)) == (
            "db.example.com:5432: the gateway cannot reach the route's server; start it, or mend the route's \"to\" "
            "(503 from edge.example.com:443: no_healthy_upstream)"
        )

    def test_a_login_remedy_names_the_credential_that_was_sent(self):
        assert 'the credential "ops" is expired, revoked or of another cluster' in str(error_for(REJECTED, "ops"))

    def test_expired_token_is_reported(self):
        error = refusal(REJECTED, gateway="edge:443", destination="db:1", credential="ops", ended="2 hours")
        assert (
            str(error) == 'db:1: the token of the credential "ops" expired 2 hours ago; replace it '
            "(401 from edge:443: Unauthenticated)"
        )

    @pytest.mark.parametrize(("status", "is_about_time"), [(401, True), (403, False), (404, False)])
    def test_wrong_clock_comes_first_where_tokens_are_rejected(self, status, is_about_time):
        given = answer(status, body=pomeriums("Unauthenticated"))
        error = refusal(given, gateway="edge:443", destination="db:1", credential="ops", clock="the clock")
        assert ("db:1: the clock; if that does not help: the credential" in str(error)) is is_about_time

    def test_missing_credential_has_its_remedy(self):
        assert "no credential was sent; set one for the route or its gateway, such as [credentials.default]" in str(
            error_for(REJECTED, None)
        )

    def test_a_status_without_an_explanation_has_no_empty_brackets(self):
        assert "()" not in str(error_for(answer(403)))


class TestBearerTokens:
    """A bad token of the identity provider looks like a denial (wire contract §2.1)."""

    def refused(self, given: Answer, credential: str | None = "idp") -> TunnelError:
        return refusal(given, gateway="edge:443", destination="db:1", credential=credential, is_bearer=True)

    def test_denial_names_both_causes_and_forbids_nothing(self):
        error = self.refused(answer(403, body=pomeriums("Forbidden")))
        assert type(error) is BearerForbidden
        assert "the token is bad or has expired, or the policy denies its user; replace the token" in str(error)

    def test_denial_without_a_token_is_the_policys(self):
        assert type(self.refused(answer(403, body=pomeriums("Forbidden")), None)) is RouteForbidden

    def test_firewalls_denial_is_no_verdict(self):
        assert type(self.refused(answer(403, body=PAGE))) is OutageInFront


def test_retry_after_is_passed_on():
    error = error_for(WIRE["429"].answer)
    assert isinstance(error, GatewayRefused)
    assert error.retry_after_s == 17.0
