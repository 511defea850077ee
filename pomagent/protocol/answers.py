"""Every answer to a CONNECT other than a tunnel, its meaning and its remedy, in one table (wire contract §3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pomagent.errors import (
    BearerForbidden,
    CredentialRejected,
    DestinationDown,
    GatewayMisbehaved,
    GatewayOverloaded,
    GatewayRefused,
    OutageInFront,
    RequestRefused,
    RouteForbidden,
    RouteUnknown,
    TunnelError,
)
from pomagent.protocol.connect import Answer
from pomagent.protocol.speaker import (
    REDIRECTS,
    demands_login,
    denies_route,
    evidence,
    interference,
    is_authorizers,
    is_foreign,
)

Test = Callable[[Answer], bool]


def _always(_: Answer) -> bool:
    return True


def _has_detail(*words: str) -> Test:
    return lambda answer: any(word in answer.detail for word in words)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of answer. The first row that matches decides."""

    statuses: frozenset[int]
    error: type[GatewayRefused]
    meaning: str
    remedy: str
    """Empty for a rejected login: its remedy depends on the credential."""
    when: Test = _always


def _row(
    statuses: tuple[int, ...], error: type[GatewayRefused], meaning: str, remedy: str, when: Test = _always
) -> Row:
    return Row(frozenset(statuses), error, meaning, remedy, when)


def _is_bare(answer: Answer) -> bool:
    return not answer.body and not is_authorizers(answer)


ROWS = (
    _row((*sorted(REDIRECTS), 401), CredentialRejected, "not logged in", "", demands_login),
    _row(
        (403,), RouteForbidden, "the policy denies this credential",
        "allow its user in the route's policy", denies_route,
    ),
    _row(
        (403,), RequestRefused, "the route does not take CONNECT",
        'make its "from" in the gateway\'s configuration a tcp+https:// URL',
    ),
    _row(
        (404,), DestinationDown, "the gateway is still loading this route", "the agent retries",
        is_authorizers,
    ),
    _row(
        (404,), RouteUnknown, "the gateway has no TCP route for this host and port",
        'compare "from" with the gateway\'s routes, port included',
    ),
    _row(
        (503,), GatewayOverloaded, "the route has reached the gateway's connection limit",
        "raise its circuit_breaker_thresholds, or close sessions",
        lambda answer: "x-envoy-overloaded" in answer.headers or "overflow" in answer.detail,
    ),
    _row(
        (503,), DestinationDown, "the gateway cannot reach the route's server",
        'start it, or mend the route\'s "to"',
        _has_detail("connection_timeout", "connection_failure", "connection_termination", "no_healthy_upstream",
                    "reset"),
    ),
    _row(
        (503,), GatewayOverloaded, "the gateway's authorize service does not answer",
        "check the gateway's authorize and databroker services", _is_bare,
    ),
    _row((503,), DestinationDown, "the gateway cannot serve the route now", "check the gateway's log"),
    _row((408,), GatewayOverloaded, "the gateway timed out on the request", "the agent retries"),
    _row((429,), GatewayOverloaded, "the gateway limits the rate of requests", "the agent retries later"),
    _row((400,), RequestRefused, "the gateway cannot parse the destination", 'check host and port of "from"'),
    _row((421, 426, 431), RequestRefused, "the gateway rejects this request", "look for a proxy in front of it"),
    _row((450,), RequestRefused, "the policy requires an enrolled device", "enrol one, or change the policy"),
    _row(
        (495,), RequestRefused, "the gateway requires a client certificate",
        "set client_cert_file and client_key_file of the gateway",
    ),
    _row(
        (501,), RequestRefused, "the gateway does not implement CONNECT", "look for a proxy in front of it",
    ),
)  # fmt: skip

_BEARER_FORBIDDEN = _row(
    (403,), BearerForbidden, "the token is bad or has expired, or the policy denies its user",
    "replace the token; if it is good, allow its user in the route's policy",
)  # fmt: skip


def refusal(
    answer: Answer, *, gateway: str, destination: str, credential: str | None, login: str = "", is_fresh: bool = False,
    ended: str = "", clock: str = "", is_bearer: bool = False,
) -> TunnelError:  # fmt: skip
    """Return the error for an answer that is not a tunnel.

    ``credential`` names the credential that was sent, if any. ``login`` names the gateway to log in to, for a
    credential from a login, and ``is_fresh`` marks a login that has just succeeded. ``ended`` is how long ago the token
    expired by its own claim, ``clock`` what is wrong with this host's clock. Both are empty if nothing is known.
    ``is_bearer`` marks a token of the identity provider, where a bad one looks like a denial (wire contract §2.1).
    """
    if answer.looks_terminated:
        return _terminated(answer, gateway, destination)
    row = _match(answer, is_bearer=is_bearer and credential is not None)
    what = f"{row.meaning}; {row.remedy}" if row.remedy else _rejection(credential, login, ended, is_fresh=is_fresh)
    if clock and not row.remedy:
        what = f"{clock}; if that does not help: {what}"
    return row.error(
        what, gateway=gateway, destination=destination, status=answer.status,
        detail=answer.detail if row.error is not OutageInFront else evidence(answer),
        request_id=answer.request_id, retry_after_s=answer.retry_after_s,
    )  # fmt: skip


def _terminated(answer: Answer, gateway: str, destination: str) -> GatewayMisbehaved:
    error = GatewayMisbehaved(
        "something in front of the gateway terminates HTTP; pass TCP through to the gateway",
        gateway=gateway, destination=destination, phase="connect",
        detail=", ".join(filter(None, ("a body instead of a tunnel", evidence(answer)))),
        origin=f"{answer.status} from",
    )  # fmt: skip
    error.status, error.request_id = answer.status, answer.request_id
    return error


def _match(answer: Answer, *, is_bearer: bool) -> Row:
    if is_foreign(answer):
        return _row((), OutageInFront, *interference(answer))
    if is_bearer and denies_route(answer):
        return _BEARER_FORBIDDEN
    for row in ROWS:
        if answer.status in row.statuses and row.when(answer):
            return row
    if answer.status >= 500:
        return _row((), GatewayOverloaded, "the gateway or a balancer in front of it fails", "the agent retries")
    return _row((), RequestRefused, "Pomerium gives no such answer", "look for a proxy in front of the gateway")


def _rejection(credential: str | None, login: str, ended: str, *, is_fresh: bool) -> str:
    if login and is_fresh:  # the login serves the default identity provider of its cluster only (wire contract §2.2)
        return (
            "the gateway rejects a fresh login; another login cannot help: the route may have its own identity "
            "provider, or require a device"
        )
    if login:
        return f"not logged in; run: pomagent login {login}"
    if credential is None:
        return (
            "no credential was sent; set one for the route or its gateway, such as [credentials.default] "
            "(`pomagent tcp`: --service-account-file)"
        )
    if ended:
        return f'the token of the credential "{credential}" expired {ended} ago; replace it'
    return f'the credential "{credential}" is expired, revoked or of another cluster; replace its token'
