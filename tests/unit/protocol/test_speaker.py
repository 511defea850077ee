"""Only an answer that Pomerium wrote is a verdict on a credential or a route."""

from __future__ import annotations

import json

import pytest

from pomagent.protocol.connect import Answer
from pomagent.protocol.speaker import (
    MAX_EVIDENCE_CHARACTERS,
    demands_login,
    denies_route,
    evidence,
    interference,
    is_foreign,
)

POMERIUMS = json.dumps({"error": "no", "request_id": "r-1"}).encode()
INTERCEPTED = {"x-pomerium-intercepted-response": "true"}
USER = "/.pomerium/user"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "https://auth.example.com/.pomerium/sign_in?pomerium_expiry=1",
        "https://authenticate.pomerium.app/.pomerium/sign_in?k=x",
        "/.pomerium/sign_in",
        " https://auth.example.com:8443/.pomerium/sign_in ",
    ],
)
def test_redirect_to_a_page_of_pomerium_demands_a_login(status, location):
    assert demands_login(Answer(status, {"location": location}), USER)
    assert not is_foreign(Answer(status, {"location": location}), USER)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "", "https://down.example.com/", "https://down.example.com/?back=/.pomerium/sign_in", "/pomerium/sign_in",
        "https://down.example.com/x/.pomerium/sign_in", "https://down.example.com/#/.pomerium/sign_in",
        "https://new.example.com/.pomerium/user", "/.pomerium", "https://[", "https://.pomerium/sign_in",
    ],
)  # fmt: skip
def test_any_other_redirect_is_of_something_in_front(status, location):
    given = Answer(status, {"location": location, "server": "envoy"})
    assert not demands_login(given, USER + "?x=y")
    assert is_foreign(given, USER + "?x=y")


@pytest.mark.parametrize(("status", "verdict"), [(401, demands_login), (403, denies_route)])
@pytest.mark.parametrize(
    ("headers", "body", "is_pomeriums"),
    [
        (INTERCEPTED, b"<html>", True),
        ({"server": "envoy"}, POMERIUMS, True),
        ({}, POMERIUMS, True),
        ({"www-authenticate": "Basic"}, b"", False),
        ({"server": "nginx"}, b"<html>", False),
        ({"server": "envoy"}, b"<html>", False),
        ({"content-type": "application/json"}, b'{"error":"Forbidden"}', False),
        ({}, b'{"error":{"code":403},"request_id":"r-1"}', False),
        ({}, b'{"message":"Forbidden","request_id":"r-1"}', False),
        ({}, POMERIUMS[:-1], False),
        ({}, b"[]", False),
        ({}, b"", False),
    ],
)
def test_verdict_needs_proof_that_pomerium_wrote_it(status, verdict, headers, body, is_pomeriums):
    given = Answer(status, headers, body)
    assert verdict(given) is is_pomeriums
    assert is_foreign(given) is not is_pomeriums


def test_bare_denial_of_envoy_is_the_gateways():
    assert not is_foreign(Answer(403, {"server": "envoy"}))
    assert not denies_route(Answer(403, {"server": "envoy"}))


@pytest.mark.parametrize(
    ("headers", "body", "foreign"),
    [
        ({"server": "envoy"}, b"<html>", False), ({}, b"", False), ({}, b"request timeout", False),
        ({}, b'{"statusText":"route_not_found"}', False), ({"server": "nginx"}, b"", True), ({}, b" <html>", True),
        ({"cf-ray": "1"}, b"", True), ({"server": "envoy", "www-authenticate": "Basic"}, b"", True),
        ({"server": "nginx"}, POMERIUMS, False), (INTERCEPTED, b"<html>", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [400, 404, 429, 495, 502, 503])
def test_other_statuses_need_proof_that_something_else_answered(status, headers, body, foreign):
    assert is_foreign(Answer(status, headers, body)) is foreign


def test_evidence_names_what_answered_and_quotes_no_secret():
    given = Answer(
        302,
        {"location": "https://u:secret@down.example.com/page?token=secret#secret", "server": "nginx", "cf-ray": "1"},
    )
    assert evidence(given) == "Cloudflare, Server nginx"
    assert interference(given) == (
        "something in front of the gateway redirects to https://down.example.com/page",
        "wait for a maintenance to end, or mend the gateway's URL if it has moved",
    )


def test_evidence_is_short_and_printable():
    given = Answer(302, {"location": "https://x/" + "a" * 1000, "server": "\x1b[2J" + "b" * 1000})
    assert len(evidence(given)) <= MAX_EVIDENCE_CHARACTERS
    assert "\x1b" not in evidence(given)
    assert len(interference(given)[0]) < 2 * MAX_EVIDENCE_CHARACTERS
