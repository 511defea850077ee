"""``forward_proxy`` resolves to a proxy, and its changes are changes of the gateway."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pomagent.errors import ConfigError
from pomagent.reload.key_changes import CONTENTS, Change, changes
from pomagent.reload.plan import diff
from pomagent.settings import ForwardProxy, HostPort, Settings

Load = Callable[..., Settings]
Write = Callable[..., Path]

EDGE = '[gateways.corp]\nurl = "https://edge.example.com"\n'
ROUTE = '[[routes]]\nname = "db"\nfrom = "db.example.com:5432"\nlisten = "127.0.0.1:5432"\ngateway = "corp"\n'


def proxy(settings: Settings) -> ForwardProxy | None:
    return settings.routes[0].gateway.proxy


def password(settings: Settings) -> str | None:
    found = proxy(settings)
    return found.credentials.get_secret_value() if found and found.credentials else None


def test_without_the_key_the_gateway_is_dialled_directly(load_text: Load) -> None:
    assert proxy(load_text(EDGE + ROUTE, {"HTTPS_PROXY": "http://proxy.test:1"})) is None


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
def test_a_url_is_the_proxy(load_text: Load, scheme: str) -> None:
    found = proxy(load_text(f'{EDGE}forward_proxy = "{scheme}://proxy.test:3128"\n{ROUTE}'))
    assert str(found) == f"{scheme}://proxy.test:3128"
    assert found is not None
    assert found.credentials is None


@pytest.mark.parametrize(
    ("environ", "extra", "expected"),
    [
        ({}, "", None),
        ({"HTTPS_PROXY": "proxy.test:3128"}, "", HostPort("proxy.test", 3128)),
        ({"HTTPS_PROXY": "proxy.test:3128", "NO_PROXY": "example.com"}, "", None),
        ({"HTTPS_PROXY": "proxy.test:3128", "NO_PROXY": "10.0.0.0/8"}, 'connect_to = "10.1.1.1:443"\n', None),
        ({"HTTPS_PROXY": "proxy.test:3128", "NO_PROXY": "example.com"}, 'connect_to = "10.1.1.1:443"\n', None),
        ({"HTTPS_PROXY": "proxy.test:3128"}, 'connect_to = "127.0.0.1:443"\n', None),
    ],
)
def test_env_takes_the_proxy_of_the_environment(
    load_text: Load, environ: dict[str, str], extra: str, expected: HostPort | None
) -> None:
    found = proxy(load_text(f'{EDGE}{extra}forward_proxy = "env"\n{ROUTE}', environ))
    assert (found and found.address) == expected


def test_a_variable_may_have_credentials_but_the_file_wins(load_text: Load, write: Write) -> None:
    environ = {"HTTPS_PROXY": "http://me:from-env@proxy.test:3128"}
    text = f'{EDGE}forward_proxy = "env"\n'
    assert password(load_text(text + ROUTE, environ)) == "me:from-env"
    write("proxy.secret", "me:from-file\n")
    settings = load_text(f'{text}forward_proxy_credentials_file = "proxy.secret"\n{ROUTE}', environ)
    assert password(settings) == "me:from-file"
    assert "from-env" not in repr(settings)


def test_a_variable_that_names_no_proxy_is_a_problem_that_does_not_repeat_it(load_text: Load) -> None:
    with pytest.raises(ConfigError) as refused:
        load_text(f'{EDGE}forward_proxy = "env"\n{ROUTE}', {"https_proxy": "socks4://me:hunter2@proxy.test"})
    assert str(refused.value) == (
        "agent.toml:3: gateways.corp.forward_proxy: the environment variable https_proxy holds no proxy; "
        "expected a URL: http://HOST:PORT, https://HOST:PORT, socks5://HOST:PORT, socks5h://HOST:PORT"
    )


def test_replaced_credentials_are_a_change_that_shows_nothing_of_them(load_text: Load, write: Write) -> None:
    text = f'{EDGE}forward_proxy = "http://proxy.test:1"\nforward_proxy_credentials_file = "proxy.secret"\n{ROUTE}'
    file = write("proxy.secret", "me:old-secret")
    before = load_text(text)
    write("proxy.secret", "me:new-secret")
    after = load_text(text)
    assert file in after.watched
    assert before.sha != after.sha
    (replaced,) = diff(before, after).replaced
    assert replaced.retires_tunnels
    key = "gateways.corp.forward_proxy_credentials_file"
    assert changes(before, after) == (Change(key, "new-sessions", CONTENTS, CONTENTS),)


def test_another_proxy_is_one_change(load_text: Load) -> None:
    before, after = (load_text(f'{EDGE}forward_proxy = "http://proxy.test:{port}"\n{ROUTE}') for port in (1, 2))
    (change,) = changes(before, after)
    assert (change.key, change.after) == ("gateways.corp.forward_proxy", "http://proxy.test:2")


@pytest.mark.parametrize(
    ("content", "is_accepted"),
    [
        (f"{'u' * 255}:{'p' * 255}", True),
        (f"{'u' * 256}:p", False),
        (f"u:{'p' * 256}", False),
        (f"u:{'ä' * 128}", False),
        ("u:", False),
    ],
)
def test_socks_has_a_limit_for_user_and_password(
    load_text: Load, write: Write, content: str, is_accepted: bool
) -> None:
    write("proxy.secret", content)
    keys = 'forward_proxy = "socks5://proxy.test"\nforward_proxy_credentials_file = "proxy.secret"\n'
    if is_accepted:
        assert password(load_text(f"{EDGE}{keys}{ROUTE}")) == content
        return
    with pytest.raises(ConfigError, match="SOCKS takes a user and a password of 1 to 255 bytes each"):
        load_text(f"{EDGE}{keys}{ROUTE}")


def test_the_proxy_is_trusted_like_the_gateway_but_never_shown_its_client_certificate(
    load_text: Load, write: Write
) -> None:
    found = proxy(load_text(f'{EDGE}verify_tls = false\nforward_proxy = "https://proxy.test"\n{ROUTE}'))
    assert found is not None
    assert not found.trust.verify
    assert found.trust.with_system
    assert found.trust.client_cert_file is None
