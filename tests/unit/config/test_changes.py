"""Which keys changed, how each is applied, and that no secret shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pomagent.config.changes import CONTENTS, Change, changes
from pomagent.errors import ConfigError
from pomagent.reload import compare
from pomagent.settings import Settings

Load = Callable[..., Settings]

BASE = '[[routes]]\nname = "redis"\nfrom = "redis.example.com:6379"\nlisten = "127.0.0.1:6379"\n'
EDGE = '[gateways.corp]\nurl = "https://edge.example.com"\n'


def test_equal_files_have_no_changes(load_text: Load) -> None:
    assert changes(load_text(BASE), load_text(BASE)) == ()


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("", 'warm = "off"\n', Change("routes.redis.warm", "new-sessions", "auto", "off")),
        ("", "enabled = false\n", Change("routes.redis.enabled", "rebind", "true", "false")),
        ("", 'tags = ["a", "b"]\n', Change("routes.redis.tags", "live", "", "a, b")),
        (EDGE, EDGE + "max_dials = 2\n", None),
    ],
)
def test_a_changed_key_is_named_with_its_class(load_text: Load, old: str, new: str, change: Change | None) -> None:
    if change is None:  # a gateway that no route uses changes nothing
        assert changes(load_text(old + BASE), load_text(new + BASE)) == ()
    else:
        assert changes(load_text(BASE + old), load_text(BASE + new)) == (change,)


def test_a_listener_that_becomes_a_unix_socket_is_one_rebinding(load_text: Load, tmp_path: Path) -> None:
    before = load_text(BASE)
    after = load_text(BASE.replace("127.0.0.1:6379", f"unix:{tmp_path}/redis.sock"))
    listen = next(change for change in changes(before, after) if change.key == "routes.redis.listen")
    assert (listen.apply, listen.before, listen.after) == ("rebind", "127.0.0.1:6379", f"unix:{tmp_path}/redis.sock")


def test_a_key_of_a_gateway_is_named_once_for_all_its_routes(load_text: Load) -> None:
    routes = BASE + 'gateway = "corp"\n' + BASE.replace("redis", "cache").replace("6379", "6380") + 'gateway = "corp"\n'
    before, after = load_text(EDGE + routes), load_text(EDGE + "max_dials = 2\n" + routes)
    assert changes(before, after) == (Change("gateways.corp.max_dials", "new-sessions", "8", "2"),)


def test_a_replaced_token_is_a_change_that_shows_nothing_of_it(load_text: Load, write: Callable[..., object]) -> None:
    text = '[credentials.default]\nservice_account_file = "token"\n' + BASE
    write("token", "old-secret")
    before = load_text(text)
    write("token", "new-secret")
    found = changes(before, load_text(text))
    assert found == (Change("credentials.default.service_account_file", "new-sessions", CONTENTS, CONTENTS),)
    assert "secret" not in repr(found)


def test_defaults_that_change_show_at_every_route(load_text: Load) -> None:
    routes = BASE + BASE.replace("redis", "cache").replace("6379", "6380")
    found = changes(load_text(routes), load_text("[defaults]\nmax_sessions = 5\n" + routes))
    assert [change.key for change in found] == ["routes.cache.max_sessions", "routes.redis.max_sessions"]


def test_what_needs_a_restart_is_refused_with_its_line(load_text: Load) -> None:
    text, key = '[status]\ncontrol_socket = "/x"\n', "status.control_socket"
    with pytest.raises(ConfigError) as refused:
        compare(load_text(BASE), load_text(text + BASE))
    (problem,) = refused.value.problems
    assert (problem.line, problem.key) == (2, key)
    assert "restart" in problem.message
