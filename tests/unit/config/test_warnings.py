"""A setting that is accepted but unsafe is reported with its file and line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pomagent.settings import Settings

Load = Callable[..., Settings]

ROUTE = '[[routes]]\nname = "redis"\nfrom = "redis.example.com:6379"\nlisten = "127.0.0.1:6379"\n'
HEADERS = {
    "gateways": '[gateways.corp]\nurl = "https://edge.example.com"\n',
}


def test_every_key_that_is_accepted_has_an_effect(load_text: Load) -> None:
    assert load_text(ROUTE + "pool_decay_s = 1800\n").warnings == ()


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            HEADERS["gateways"] + "verify_tls = false\n",
            "agent.toml:3: gateways.corp.verify_tls: is false: any host on the path to the gateway can take the token",
        ),
        (
            HEADERS["gateways"] + "insecure_http = true\n",
            "agent.toml:3: gateways.corp.insecure_http: is true: the token travels in clear text",
        ),
        (
            '[[routes]]\nfrom = "a:1"\nlisten = "0.0.0.0:1"\nunsafe_listen = true\n',
            "agent.toml:3: routes.a-1.listen: 0.0.0.0:1 is not loopback: other hosts can connect",
        ),
    ],
)
def test_unsafe_setting_is_warned_of(text: str, warning: str, load_text: Load) -> None:
    assert load_text(text + ROUTE).warnings == (warning,)


def test_warning_about_a_variable_names_the_environment(load_text: Load) -> None:
    assert load_text(HEADERS["gateways"] + ROUTE, {"POMAGENT_GATEWAYS__CORP__VERIFY_TLS": "false"}).warnings == (
        "environment: POMAGENT_GATEWAYS__CORP__VERIFY_TLS: "
        "is false: any host on the path to the gateway can take the token",
    )
