"""What routes share of gateways and credentials, and what of it survives a reload."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from pomagent.gateways import Gateways
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
    gateways.connector(new.routes[0], FakeLog().log)


def test_a_token_outlives_a_change_of_how_often_it_is_looked_at(gateways: Gateways) -> None:
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
