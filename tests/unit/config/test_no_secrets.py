"""No secret of the configuration appears in a message or in the repr of settings."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pomagent.config.load import load
from pomagent.errors import ConfigError
from pomagent.settings import Settings

SECRET = "hunter2-S3CR3T"
ROUTE = '[[routes]]\nfrom = "a.example.com:1"\nlisten = "127.0.0.1:1"\n'

Load = Callable[..., Settings]


def test_accepted_settings_show_no_token(load_text: Load, write: Callable[..., Path]) -> None:
    write("token.jwt", SECRET)
    write("proxy.secret", f"user:{SECRET}")
    settings = load_text(
        '[credentials.default]\nservice_account_file = "token.jwt"\n[credentials.env]\nenv = "T"\n'
        '[gateways.corp]\nurl = "https://edge.example.com"\nforward_proxy = "http://proxy.example.com:3128"\n'
        'forward_proxy_credentials_file = "proxy.secret"\n'
        f'{ROUTE}gateway = "corp"\n{ROUTE.replace(":1", ":2")}credential = "env"\n',
        {"T": SECRET},
    )
    tokens = [route.credential.token for route in settings.routes if route.credential]
    assert [token.get_secret_value() for token in tokens if token] == [SECRET, SECRET]
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    assert SECRET not in "".join(settings.warnings)


@pytest.mark.parametrize(
    "text",
    [
        f'[credentials.default]\ntoken = "{SECRET}"\n{ROUTE}',
        f'[credentials.default]\nenv = ["{SECRET}"]\n{ROUTE}',
        f'[credentials.default]\ncommand = "mint --password {SECRET}"\n{ROUTE}',
        f'[credentials.default]\ncommand = ["mint", "{SECRET}"]\nenv = "X"\n{ROUTE}',
        f'[credentials.default]\nlogin = "{SECRET}"\n{ROUTE}',
        f'[credentials.default]\nservice_account_file = "eyJ{SECRET}"\n{ROUTE}',
        f'[credentials.default]\nservice_account_file = "t"\nservice_account = "{SECRET}"\n{ROUTE}',
        f'[gateways.corp]\nurl = "https://user:{SECRET}@edge.example.com"\n{ROUTE}',
        f'[gateways.corp]\nurl = "https://edge.example.com/?pomerium_session={SECRET}"\n{ROUTE}',
        f'[gateways.corp]\nurl = "{SECRET}"\n{ROUTE}',
        f'[gateways.corp]\nurl = "https://x"\nconnect_to = "u:{SECRET}@x:1"\n{ROUTE}',
        f'[gateways.corp]\nurl = "https://x"\nforward_proxy = "http://u:{SECRET}@x:1"\n{ROUTE}',
        f'[gateways.corp]\nurl = "https://x"\nforward_proxy = "{SECRET}"\n{ROUTE}',
        f'[gateways.corp]\nurl = "https://x"\ncredential = "{SECRET}"\n{ROUTE}',
        f'[[routes]]\nfrom = "tcp+https://u:{SECRET}@a:1"\nlisten = "127.0.0.1:1"\n',
        f'[[routes]]\nfrom = "tcp+https://a:1?pomerium_session={SECRET}"\nlisten = "127.0.0.1:1"\n',
        f'[[routes]]\nfrom = "{SECRET}"\nlisten = "{SECRET}"\n',
        f'{ROUTE}credential = "{SECRET}"\n',
        f'{ROUTE}gateway = "{SECRET}"\n',
        f'{ROUTE}warm = "{SECRET}"\nprotocol = ["{SECRET}"]\nsocket_mode = "{SECRET}"\n',
        f'{ROUTE}description = "{SECRET}\n',
        f'[status]\nlisten = "u:{SECRET}@127.0.0.1:1"\n{ROUTE}',
    ],
)
def test_no_problem_shows_a_pasted_token(text: str, load_text: Load) -> None:
    with pytest.raises(ConfigError) as refusal:
        load_text(text)
    assert SECRET not in str(refusal.value)
    assert SECRET not in repr(refusal.value.problems)
    assert SECRET not in "".join(traceback.format_exception(refusal.value))


@pytest.mark.parametrize("content", [f"{SECRET} {SECRET}", f"{SECRET}\x00", f"{SECRET}é", SECRET * 10_000])
def test_no_problem_shows_a_malformed_token(content: str, load_text: Load, write: Callable[..., Path]) -> None:
    write("token.jwt", content)
    with pytest.raises(ConfigError) as refusal:
        load_text(f'[credentials.default]\nservice_account_file = "token.jwt"\n[credentials.e]\nenv = "T"\n{ROUTE}',
                  {"T": content})  # fmt: skip
    assert len(refusal.value.problems) == 2
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("name", ["POMAGENT_AGENT__LOG_LEVEL", "POMAGENT_DRAIN__TIMEOUT_S", "POMAGENT_AGENT"])
def test_no_problem_shows_the_value_of_a_variable(name: str, load_text: Load) -> None:
    with pytest.raises(ConfigError) as refusal:
        load_text(ROUTE, {name: SECRET})
    assert SECRET not in str(refusal.value)


keys = st.sampled_from(
    ["url", "credential", "ca_file", "forward_proxy", "from", "listen", "gateway", "env", "command", "tags", "token"]
)
values = st.sampled_from([f'"u:{SECRET}@h:1"', f'["{SECRET}"]', f'{{ a = "{SECRET}" }}', f'"https://u:{SECRET}@h"'])
headers = st.sampled_from(
    ["[agent]", "[status]", "[gateways.a]", "[credentials.default]", "[defaults]", "[[routes]]", "[x]"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(headers, keys, values), min_size=1, max_size=4))
def test_a_secret_in_any_key_stays_in_the_file(directory: Path, parts: list[tuple[str, str, str]]) -> None:
    Path("agent.toml").write_text("\n".join(f"{header}\n{key} = {value}" for header, key, value in parts))
    try:
        load(Path("agent.toml"), os.environ)
    except ConfigError as refusal:
        # a path that does not exist is shown: it is where an operator looks next
        shown = "\n".join(line for line in str(refusal).splitlines() if "ca_file" not in line)
        assert SECRET not in shown
