"""Which tokens are checked at which gateway, and what each verdict does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from pydantic import SecretStr

from pomagent.errors import CredentialRejected, GatewayUnreachable, RouteForbidden, TunnelError
from pomagent.gateway.tunnel import Presented
from pomagent.revocation import Revocation
from pomagent.settings import Credential, Gateway, HostPort, Route, Settings
from tests.fakes.log import FakeLog

EDGE, OTHER = (Gateway(name, HostPort(f"{name}.example.com", 443)) for name in ("edge", "other"))
CREDENTIAL = Credential("default", "command", recheck_s=60.0)
OLD, NEW = SecretStr("old-token"), SecretStr("new-token")
NAMED = {"gateway": "edge.example.com:443", "destination": "the user's page"}


class FakeForwarder:
    """A route with sessions that were opened with these tokens."""

    def __init__(
        self, *presented: Presented, gateway: Gateway = EDGE, credential: Credential | None = CREDENTIAL
    ) -> None:
        self.presented = list(presented)
        self.route = Route("db", HostPort("127.0.0.1", 1), HostPort("db", 1), gateway, credential)
        self.last_error: Exception | None = None
        self.trusted = 0
        self.distrusted: list[Exception] = []

    def end_revoked(self, revoked: Presented) -> int:
        ended = [
            item
            for item in self.presented
            if (item.token, item.gateway.address) == (revoked.token, revoked.gateway.address)
        ]
        self.presented = [item for item in self.presented if item not in ended]
        return len(ended)

    def distrust(self, error: Exception) -> None:
        self.last_error = error
        self.distrusted.append(error)

    def trust(self) -> None:
        self.last_error = None
        self.trusted += 1


class Asked:
    """A revocation check of these routes, with the answers of its gateways."""

    def __init__(self, *forwarders: FakeForwarder, now: SecretStr | None = NEW) -> None:
        self.forwarders = list(forwarders)
        self.now = now
        self.log = FakeLog()
        self.asked: list[tuple[str, str]] = []
        self.verdicts: dict[str, Callable[[], TunnelError]] = {}
        given: Any = lambda: self.forwarders  # noqa: E731
        self.recheck = Revocation(given, lambda _: self.now, self.log.log, self._ask)

    def _ask(self, presented: Presented) -> None:
        token = presented.token.get_secret_value()
        self.asked.append((presented.gateway.name, token))
        if token in self.verdicts:
            raise self.verdicts[token]()

    def look(self) -> list[tuple[str, str]]:
        self.asked.clear()
        self.recheck.check("default")
        return sorted(self.asked)


def opened(token: SecretStr = NEW, gateway: Gateway = EDGE) -> Presented:
    return Presented(gateway, CREDENTIAL, token)


def rejected() -> CredentialRejected:
    return CredentialRejected("answered 401: not logged in", status=401, request_id="r-1", **NAMED)


def test_each_token_is_checked_once_at_each_of_its_gateways() -> None:
    first = FakeForwarder(opened(), opened(), opened(OLD))
    second = FakeForwarder(opened(), opened(OLD, OTHER), gateway=OTHER)
    assert Asked(first, second).look() == [
        ("edge", "new-token"), ("edge", "old-token"), ("other", "new-token"), ("other", "old-token"),
    ]  # fmt: skip


def test_present_token_is_checked_without_sessions_too() -> None:
    assert Asked(FakeForwarder()).look() == [("edge", "new-token")]


def test_gateways_are_not_asked_without_a_token_or_about_other_credentials() -> None:
    other = FakeForwarder(credential=Credential("other", "command"))
    assert Asked(FakeForwarder(), FakeForwarder(credential=None), other, now=None).look() == []


def test_revoked_token_counts_once_whatever_its_routes_report_meanwhile() -> None:
    plain, down = FakeForwarder(opened()), FakeForwarder(opened())
    asked = Asked(plain, down)
    asked.verdicts["new-token"] = rejected
    for _ in range(3):
        assert asked.look() == [("edge", "new-token")]
        down.last_error = GatewayUnreachable("connection refused", phase="tcp", **NAMED)
    assert (len(plain.distrusted), len(down.distrusted)) == (1, 1)
    assert len(asked.log.named("credential.revoked")) == 1


def test_route_that_has_no_error_any_more_is_distrusted_again_without_a_line() -> None:
    replaced = FakeForwarder()
    asked = Asked(replaced)
    asked.verdicts["new-token"] = rejected
    asked.look()
    replaced.last_error = None  # a reload has replaced its pool
    asked.look()
    assert len(replaced.distrusted) == 2
    assert len(asked.log.named("credential.revoked")) == 1


def test_sessions_opened_since_the_verdict_are_ended_and_logged() -> None:
    forwarder = FakeForwarder(opened())
    asked = Asked(forwarder)
    asked.verdicts["new-token"] = rejected
    asked.look()
    forwarder.presented = [opened(), opened()]
    asked.look()
    assert [event["sessions"] for event in asked.log.named("credential.revoked")] == [1, 2]


def test_readmitted_token_is_trusted_by_every_route_of_its_gateway() -> None:
    one, two, elsewhere = FakeForwarder(opened()), FakeForwarder(), FakeForwarder(gateway=OTHER)
    asked = Asked(one, two, elsewhere)
    asked.look()
    assert (one.trusted, two.trusted) == (0, 0)
    asked.verdicts["new-token"] = rejected
    asked.look()
    asked.verdicts.clear()
    asked.look()
    asked.look()
    assert (one.trusted, two.trusted, elsewhere.trusted) == (1, 1, 1)
    gateways = [event["gateway"] for event in asked.log.named("credential.readmitted")]
    assert sorted(gateways) == ["edge.example.com:443", "other.example.com:443"]
    asked.verdicts["new-token"] = rejected
    asked.look()
    assert len(asked.log.named("credential.revoked")) == 4


def test_unanswered_check_neither_readmits_nor_repeats_a_verdict() -> None:
    forwarder = FakeForwarder(opened())
    asked = Asked(forwarder)
    asked.verdicts["new-token"] = rejected
    asked.look()
    asked.verdicts["new-token"] = lambda: GatewayUnreachable("connection refused", phase="tcp", **NAMED)
    asked.look()
    asked.verdicts["new-token"] = rejected
    asked.look()
    assert (forwarder.trusted, len(forwarder.distrusted)) == (0, 1)
    assert len(asked.log.named("credential.revoked")) == 1


def test_checks_of_another_credential_forget_no_verdict() -> None:
    asked = Asked(FakeForwarder())
    asked.verdicts["new-token"] = rejected
    asked.look()
    asked.recheck.check("other")
    asked.look()
    assert len(asked.log.named("credential.revoked")) == 1


def test_revoked_token_ends_only_the_sessions_that_it_opened() -> None:
    forwarder = FakeForwarder(opened(), opened(OLD), opened(OLD))
    asked = Asked(forwarder)
    asked.verdicts["old-token"] = rejected
    asked.look()
    assert forwarder.presented == [opened()]
    assert not forwarder.distrusted
    (event,) = asked.log.named("credential.revoked")
    assert (event["sessions"], event["status"], event["request_id"], event["level"]) == (2, 401, "r-1", "error")
    assert "old-token" not in asked.log.text


def test_revoked_present_token_is_distrusted_by_every_route_of_its_gateway() -> None:
    one, two, elsewhere = FakeForwarder(opened()), FakeForwarder(), FakeForwarder(opened(OLD, OTHER), gateway=OTHER)
    asked = Asked(one, two, elsewhere)
    asked.verdicts["new-token"] = rejected
    asked.recheck._ask = lambda presented: asked._ask(presented) if presented.gateway == EDGE else None
    asked.look()
    assert (len(one.distrusted), len(two.distrusted), len(elsewhere.distrusted)) == (1, 1, 0)
    assert one.presented == []


@pytest.mark.parametrize(
    "verdict",
    [
        lambda: GatewayUnreachable("connection refused", phase="connect", **NAMED),
        lambda: RouteForbidden("answered 403", status=403, **NAMED),
    ],
)
def test_other_failure_ends_no_session_and_is_logged_once_in_a_row(verdict: Callable[[], TunnelError]) -> None:
    forwarder = FakeForwarder(opened())
    asked = Asked(forwarder)
    asked.verdicts["new-token"] = verdict
    asked.look()
    asked.look()
    assert (forwarder.presented, forwarder.distrusted) == ([opened()], [])
    assert len(asked.log.named("credential.unchecked")) == 1
    asked.verdicts.clear()
    asked.look()
    asked.verdicts["new-token"] = verdict
    asked.look()
    assert len(asked.log.named("credential.unchecked")) == 2


def test_session_is_checked_by_the_credential_that_opened_it() -> None:
    moved = FakeForwarder(opened(OLD), credential=Credential("another", "env", variable="T"))
    asked = Asked(moved)
    asked.verdicts = {"old-token": rejected}
    assert asked.look() == [("edge", "old-token")]
    assert moved.presented == []
    assert moved.distrusted == []


def test_sessions_of_a_removed_credential_are_checked_too() -> None:
    moved = FakeForwarder(opened(OLD), credential=None)
    asked = Asked(moved)
    asked.recheck.follow(Settings(Path("/agent.toml"), routes=(moved.route,)))
    assert set(asked.recheck._checkers) == {("default", 60.0)}
    moved.presented = []
    asked.recheck.follow(Settings(Path("/agent.toml"), routes=(moved.route,)))
    assert not asked.recheck._checkers


def test_settings_start_and_stop_the_checks() -> None:
    asked = Asked(FakeForwarder())
    often = Settings(Path("/a"), routes=(FakeForwarder(credential=Credential("default", "env", recheck_s=0.01)).route,))
    asked.recheck.follow(often)
    with gevent.Timeout(5):
        while len(asked.asked) < 3:
            gevent.sleep(0.01)
    asked.recheck.follow(Settings(Path("/a")))
    gevent.sleep(0.03)
    count = len(asked.asked)
    gevent.sleep(0.05)
    assert len(asked.asked) == count
    asked.recheck.close()
