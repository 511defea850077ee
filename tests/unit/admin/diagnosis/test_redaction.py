"""Redaction removes known and likely secrets, and keeps everything useful."""

import tomllib

import pytest

from pomagent.admin.diagnosis.redaction import REDACTED, UNKNOWN, redacted_toml, scrubbed

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJwb21lcml1bSJ9.c2lnbmF0dXJl-_x"
OPAQUE = "0123456789abcdef0123456789abcdef"

FILE = f"""
# the old password was hunter2
[agent]
log_level = "debug"        # {TOKEN}
include = ["routes.d/*.toml"]
pasword = "hunter2"

[secrets]
root = "hunter2"

[gateways.corp]
url = "https://user:hunter2@edge.example.com"
forward_proxy = "http://user:hunter2@proxy.example.com:3128"
credential = "a-name-that-is-longer-than-thirty-two-characters"
verify_tls = true
connect_timeout_s = 2.5
max_dials = 8

[credentials.a]
service_account_file = "{TOKEN}"
[credentials.b]
command = ["/usr/local/bin/mint", "--password", "hunter2"]
[credentials.c]
systemd_credential = "{OPAQUE}"
[credentials.d]
token = "hunter2"
[credentials.e]
env = "ORDERS_TOKEN"
[credentials.f]
service_account_file = {{ inline = "hunter2" }}

[[routes]]
name = "orders-db"
from = "tcp+https://orders.example.com:5432"
listen = "127.0.0.1:5432"
tags = ["prod", "{TOKEN}"]
allow_users = ["alice", 1000]
when = 2026-01-01
[[routes]]
"hunter2" = 1
""".replace('"hunter2" = 1', f'"{OPAQUE}" = 1')


def test_secrets_are_removed_from_every_place() -> None:
    shown = redacted_toml(FILE.encode())
    assert "hunter2" not in shown
    assert "eyJ" not in shown
    assert "signature" not in shown
    assert OPAQUE not in shown


def test_useful_values_remain_and_the_result_is_toml() -> None:
    shown = tomllib.loads(redacted_toml(FILE.encode()))
    assert shown["agent"] == {"log_level": "debug", "include": ["routes.d/*.toml"], "pasword": UNKNOWN}
    assert shown["secrets"] == {}
    assert shown["gateways"]["corp"] == {
        "url": f"https://{REDACTED}@edge.example.com", "forward_proxy": f"http://{REDACTED}@proxy.example.com:3128",
        "credential": "a-name-that-is-longer-than-thirty-two-characters", "verify_tls": True, "connect_timeout_s": 2.5,
        "max_dials": 8,
    }  # fmt: skip
    assert shown["credentials"] == {
        "a": {"service_account_file": REDACTED},
        "b": {"command": ["/usr/local/bin/mint", REDACTED, REDACTED]},
        "c": {"systemd_credential": REDACTED},
        "d": {"token": UNKNOWN},
        "e": {"env": "ORDERS_TOKEN"},
        "f": {"service_account_file": REDACTED},
    }
    first, second = shown["routes"]
    assert (first["name"], first["from"]) == ("orders-db", "tcp+https://orders.example.com:5432")
    assert (first["tags"], first["allow_users"]) == (["prod", REDACTED], ["alice", 1000])
    assert second == {REDACTED: UNKNOWN}


@pytest.mark.parametrize("content", [b'password = "hunter2', b"\xff\xfehunter2", b"[" * 100_000 + b"hunter2"])
def test_an_invalid_file_is_left_out(content: bytes) -> None:
    assert "hunter2" not in redacted_toml(content)
    assert redacted_toml(content).startswith("# not valid TOML")


@pytest.mark.parametrize(
    "text", ["routes = 'hunter2'", "gateways = 'hunter2'", "agent = ['hunter2']", "credentials.a = 'hunter2'"]
)
def test_a_value_in_place_of_a_table_is_left_out(text: str) -> None:
    assert "hunter2" not in redacted_toml(text.encode())


def test_the_example_file_is_unchanged(tmp_path) -> None:
    """The example has every key, and each may be shown."""
    from tests.unit.test_readme import ROOT

    text = (ROOT / "agent.toml").read_text()
    assert tomllib.loads(redacted_toml(text.encode())) == tomllib.loads(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Authorization: Pomerium {TOKEN}", f"Authorization: Pomerium {REDACTED}"),
        (f'"a": "{TOKEN}", "b": 1', f'"a": "{REDACTED}", "b": 1'),
        ("http://user:pass@proxy:3128/ and https://other", f"http://{REDACTED}@proxy:3128/ and https://other"),
        ("mail@example.com eyes eyJ", "mail@example.com eyes eyJ"),
        ("one\ntwo\r\nthree", "one\ntwo\r\nthree"),
    ],
)
def test_a_text_loses_tokens_and_passwords_and_nothing_else(text: str, expected: str) -> None:
    assert scrubbed(text) == expected


@pytest.mark.parametrize("secret", ["opaque+token/123", 'with"quote', "back\\slash", "user:hunter2"])
def test_a_secret_that_is_known_is_found_in_any_text_also_as_json_has_it(secret: str) -> None:
    import json

    assert scrubbed(f"x {secret} y", [secret]) == f"x {REDACTED} y"
    assert json.loads(scrubbed(json.dumps({"said": f"x {secret} y"}), [secret])) == {"said": f"x {REDACTED} y"}


def test_of_two_secrets_the_longer_one_goes_as_a_whole() -> None:
    assert scrubbed("user:pass", ["pass", "", "user:pass"]) == REDACTED
