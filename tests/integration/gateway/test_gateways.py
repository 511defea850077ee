"""What routes share of gateways and credentials, and what of it survives a reload."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from pomagent.gateway.dialer import Dialer
from pomagent.gateway.gateways import Gateways
from pomagent.settings import Credential, ForwardProxy, Gateway, HostPort, Route, Settings, Trust
from tests.fakes.log import FakeLog

MINTED = Credential("default", "command", command=("mint",))
EDGE = Gateway("edge", HostPort("edge.example.com", 443))


@pytest.fixture
def gateways(no_leaks: None) -> Iterator[Gateways]:
    running = Gateways(lambda _: SecretStr("minted"), FakeLog().log)
    yield running
    running.close()


def settings(credential: Credential = MINTED, gateway: Gateway = EDGE) -> Settings:
    route = Route("db", HostPort("127.0.0.1", 1), HostPort("db", 1), gateway, credential)
    return Settings(Path("/agent.toml"), routes=(route,))


def adopt(gateways: Gateways, new: Settings) -> None:
    gateways.adopt(new, gateways.prepare(new))
    gateways.opener(new.routes[0], FakeLog().log)


def test_token_survives_a_change_of_recheck_s(gateways: Gateways) -> None:
    adopt(gateways, settings())
    (token,) = gateways.tokens
    assert token.obtain() == SecretStr("minted")
    often = replace(MINTED, recheck_s=60.0)
    adopt(gateways, settings(often))
    assert gateways.tokens == [token]
    assert token.credential == often
    assert gateways.token_of(often) == SecretStr("minted")
    assert gateways.token_of(MINTED) is None


def test_another_source_is_another_token(gateways: Gateways) -> None:
    adopt(gateways, settings())
    (token,) = gateways.tokens
    adopt(gateways, settings(replace(MINTED, command=("mint", "--other"))))
    assert gateways.tokens != [token]


@pytest.mark.parametrize(("scheme", "count"), [("http", 1), ("https", 2), ("socks5", 1)])
def test_only_a_proxy_with_tls_needs_a_context_of_its_own(gateways: Gateways, scheme: str, count: int) -> None:
    trust = Trust(with_system=True)
    proxy = ForwardProxy(scheme, HostPort("proxy.test", 1), trust=trust)  # type: ignore[arg-type]
    contexts = gateways.prepare(settings(gateway=replace(EDGE, proxy=proxy)))
    assert len(contexts) == count
    assert (trust in contexts) is (scheme == "https")


def dialers(gateways: Gateways, *tables: Gateway) -> list[Dialer]:
    """Return the dialers for settings with one route for each table."""
    credential = replace(MINTED, recheck_s=0.0)
    routes = tuple(
        Route(f"db-{number}", HostPort("127.0.0.1", 1), HostPort("db", 1), table, credential)
        for number, table in enumerate(tables)
    )
    new = Settings(Path("/agent.toml"), routes=routes)
    gateways.adopt(new, gateways.prepare(new))
    for route in routes:
        gateways.opener(route, FakeLog().log)
    return gateways.dialers


def test_tables_of_one_address_share_the_largest_handshake_limit(gateways: Gateways) -> None:
    one, other = dialers(gateways, EDGE, replace(EDGE, name="other", max_dials=3))
    assert one.handshake_limit is other.handshake_limit
    assert one.handshake_limit.limit == EDGE.max_dials


def test_reload_keeps_the_handshakes_under_way(gateways: Gateways) -> None:
    (before,) = dialers(gateways, EDGE)
    with before.handshake_limit.slot(urgent=True):
        (after,) = dialers(gateways, replace(EDGE, connect_timeout_s=1.0, max_dials=2))
        assert after is not before
        assert (after.handshake_limit.under_way, after.handshake_limit.limit) == (1, 2)


def test_health_survives_a_changed_table(gateways: Gateways) -> None:
    dialers(gateways, EDGE)
    watch = gateways.health_of(EDGE)
    dialers(gateways, replace(EDGE, max_dials=2))
    assert gateways.health_of(replace(EDGE, max_dials=2)) is watch


def test_gateways_are_not_compared_pairwise(gateways: Gateways, monkeypatch: pytest.MonkeyPatch) -> None:
    """Routes name edges of their own by the thousand, and the hub adopts them at each reload."""
    compared = 0
    is_equal = HostPort.__eq__

    def counted(one: HostPort, other: object) -> bool:
        nonlocal compared
        compared += 1
        return is_equal(one, other)

    tables = [Gateway(f"edge-{number}", HostPort(f"edge-{number}.example.com", 443)) for number in range(300)]
    monkeypatch.setattr(HostPort, "__eq__", counted)
    assert len(dialers(gateways, *tables)) == len(tables)
    assert compared < 30 * len(tables)
