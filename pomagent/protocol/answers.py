"""Every answer to a CONNECT other than a tunnel, what it means, and what to do: one table (wire contract §3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pomagent.errors import (
    CredentialRejected,
    DestinationDown,
    GatewayMisbehaved,
    GatewayOverloaded,
    GatewayRefused,
    RequestRefused,
    RouteForbidden,
    RouteUnknown,
    TunnelError,
)
from pomagent.protocol.connect import Answer

Test = Callable[[Answer], bool]


def _always(_: Answer) -> bool:
    return True


def _says(*words: str) -> Test:
    return lambda answer: any(word in answer.detail for word in words)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of answer; the first row that matches decides."""

    statuses: frozenset[int]
    error: type[GatewayRefused]
    meaning: str
    remedy: str
    when: Test = _always


def _row(
    statuses: tuple[int, ...], error: type[GatewayRefused], meaning: str, remedy: str, when: Test = _always
) -> Row:
    return Row(frozenset(statuses), error, meaning, remedy, when)


def _is_bare(answer: Answer) -> bool:
    return not answer.body and not answer.from_authorizer


ROWS = (
    _row((301, 302, 303, 307, 308, 401), CredentialRejected, "not logged in", ""),  # the remedy: see _login_remedy
    _row(
        (403,), RouteForbidden, "the route exists but does not take CONNECT",
        "make its `from` in the gateway's configuration a tcp+https:// URL", _is_bare,
    ),
    _row(
        (403,), RouteForbidden, "this credential has no access to the route",
        "allow its user in the route's policy",
    ),
    _row(
        (404,), DestinationDown, "the gateway is still loading this route", "it is tried again",
        lambda answer: answer.from_authorizer,
    ),
    _row(
        (404,), RouteUnknown, "the gateway has no TCP route of this host and port",
        "compare `from` with the gateway's routes, port included",
    ),
    _row(
        (503,), GatewayOverloaded, "the route is at the gateway's limit of connections",
        "raise the route's circuit_breaker_thresholds or close sessions",
        lambda answer: "x-envoy-overloaded" in answer.headers or "overflow" in answer.detail,
    ),
    _row(
        (503,), DestinationDown, "the gateway gets no connection to the route's server",
        "start that server, or mend the route's `to`",
        _says("connection_timeout", "connection_failure", "connection_termination", "no_healthy_upstream", "reset"),
    ),
    _row(
        (503,), GatewayOverloaded, "the gateway's authorize service does not answer",
        "look at the gateway's authorize and databroker services", _is_bare,
    ),
    _row((503,), DestinationDown, "the gateway cannot serve the route now", "look at the gateway's log"),
    _row((408,), GatewayOverloaded, "the gateway did not get to the request in time", "it is tried again"),
    _row((429,), GatewayOverloaded, "too many requests", "it is tried again later"),
    _row((400,), RequestRefused, "the gateway cannot read the destination", "check host and port of `from`"),
    _row((421, 426, 431), RequestRefused, "the gateway does not take this request", "look for a proxy in front of it"),
    _row((450,), RequestRefused, "the policy asks for an enrolled device", "enrol one, or change the policy"),
    _row(
        (495,), RequestRefused, "the gateway asks for a client certificate",
        "set client_cert_file and client_key_file of the gateway",
    ),
    _row((501,), RequestRefused, "CONNECT is not implemented there", "look for a proxy in front of the gateway"),
)  # fmt: skip


def refusal(
    answer: Answer, *, gateway: str, destination: str, credential: str | None, login: str = "", is_fresh: bool = False,
    ended: str = "", clock: str = "",
) -> TunnelError:  # fmt: skip
    """The error for an answer that is no tunnel; ``credential`` is the name of the one that was sent, if one was.

    ``login`` is where somebody may log in for it; ``is_fresh`` that this has just been done. ``ended`` is how long ago
    its token ended by its own claim, ``clock`` what is wrong with this host's clock; both empty if nothing is known.
    """
    if answer.looks_terminated:
        error: TunnelError = GatewayMisbehaved(
            f"{answer.status} with a body instead of a tunnel: something terminates HTTP in front of the gateway; "
            "pass TCP through to it",
            gateway=gateway, destination=destination, phase="connect",
        )  # fmt: skip
        error.status, error.request_id = answer.status, answer.request_id
        return error
    row = _match(answer)
    remedy = row.remedy or (_browser_remedy(login, is_fresh=is_fresh) if login else _login_remedy(credential, ended))
    if clock and not row.remedy:
        remedy = f"{clock}; if that does not help, {remedy}"
    detail = f" ({answer.detail})" if answer.detail else ""
    return row.error(
        f"refused with {answer.status}{detail}: {row.meaning}; {remedy}",
        gateway=gateway, destination=destination, status=answer.status,
        request_id=answer.request_id, retry_after_s=answer.retry_after_s,
    )  # fmt: skip


def _match(answer: Answer) -> Row:
    for row in ROWS:
        if answer.status in row.statuses and row.when(answer):
            return row
    if answer.status >= 500:
        return _row((), GatewayOverloaded, "the gateway or a balancer before it is in trouble", "it is tried again")
    return _row((), RequestRefused, "an answer that no Pomerium gives", "look for a proxy in front of the gateway")


def _browser_remedy(login: str, *, is_fresh: bool) -> str:
    if is_fresh:  # the login serves the default identity provider of its cluster only (wire contract §2.2)
        return "another login cannot help: the route may have its own identity provider, or ask for a device"
    return f"log in: pomagent login {login}"


def _login_remedy(credential: str | None, ended: str) -> str:
    if credential is None:
        return (
            "no credential was sent: set one for the route or its gateway, such as [credentials.default] "
            "(`pomagent tcp`: --service-account-file)"
        )
    if ended:
        return f'the token of the credential "{credential}" ended {ended} ago by its own claim: replace it'
    return f'the credential "{credential}" is expired, revoked or of another cluster: replace its token'
