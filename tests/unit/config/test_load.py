"""The right file is loaded, with its includes and overrides, and all inputs are watched."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pomagent.config import default_paths
from pomagent.config.default_paths import SYSTEM_PATH, default_control_socket, distrust_of_local_config, find_config
from pomagent.config.load import load
from pomagent.errors import ConfigError
from pomagent.settings import HostPort, Settings

ROUTE = '[[routes]]\nfrom = "a.example.com:6379"\nlisten = "127.0.0.1:6379"\n'
OTHER = '[[routes]]\nfrom = "b.example.com:22"\nlisten = "127.0.0.1:22"\n'
INCLUDE = '[agent]\ninclude = ["routes.d/*.toml"]\n'

Load = Callable[..., Settings]
Write = Callable[..., Path]


class TestFileSelection:
    def test_flag_comes_first(self, directory: Path) -> None:
        assert find_config("x.toml", {"POMAGENT_CONFIG": "y.toml"}) == Path("x.toml")

    def test_variable_comes_before_local_file(self, write: Write) -> None:
        write("agent.toml", ROUTE)
        assert find_config(None, {"POMAGENT_CONFIG": "y.toml"}) == Path("y.toml")

    def test_file_in_the_current_directory_comes_before_the_systems(self, write: Write) -> None:
        write("agent.toml", ROUTE)
        assert find_config(None, {}) == Path("agent.toml")

    @pytest.mark.parametrize("mode", [0o660, 0o606, 0o666])
    def test_a_local_file_that_others_may_write_is_passed_over(self, write: Write, mode: int) -> None:
        write("agent.toml", ROUTE, mode)
        assert distrust_of_local_config() == "other users may write to agent.toml (chmod go-w agent.toml)"
        assert find_config(None, {}) == SYSTEM_PATH

    @pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
    def test_a_local_file_that_others_may_replace_is_passed_over(
        self, write: Write, directory: Path, mode: int
    ) -> None:
        write("agent.toml", ROUTE)
        directory.chmod(mode)
        assert f"other users may write to {directory} (chmod go-w {directory})" == distrust_of_local_config()
        assert find_config(None, {}) == SYSTEM_PATH

    def test_a_local_file_of_another_user_is_passed_over(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        write("agent.toml", ROUTE)
        owner = os.getuid()
        monkeypatch.setattr(default_paths, "ROOT", -1)
        monkeypatch.setattr("os.geteuid", lambda: owner + 1)
        assert f"agent.toml belongs to user {owner}, not to you or root" == distrust_of_local_config()
        assert find_config(None, {}) == SYSTEM_PATH

    def test_a_local_file_of_root_is_read_by_everybody(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        write("agent.toml", ROUTE)
        monkeypatch.setattr(default_paths, "ROOT", os.getuid())
        monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
        assert find_config(None, {}) == Path("agent.toml")

    def test_a_named_file_is_the_callers_own_choice(self, write: Write) -> None:
        write("agent.toml", ROUTE, 0o666)
        assert find_config("agent.toml", {}) == Path("agent.toml")

    def test_file_of_the_system_comes_last(self, directory: Path) -> None:
        assert find_config(None, {"POMAGENT_CONFIG": ""}) == Path("/etc/pomagent/agent.toml")


class TestEnvironment:
    def test_a_variable_wins_over_the_file(self, load_text: Load) -> None:
        text = '[agent]\nlog_level = "error"\n' + ROUTE
        assert load_text(text, {"POMAGENT_AGENT__LOG_LEVEL": "debug"}).agent.log_level == "debug"

    def test_a_variable_wins_over_a_wrong_value_in_the_file(self, load_text: Load) -> None:
        text = '[agent]\nlog_level = "loud"\n' + ROUTE
        assert load_text(text, {"POMAGENT_AGENT__LOG_LEVEL": "debug"}).agent.log_level == "debug"

    def test_text_becomes_the_type_of_the_key(self, load_text: Load) -> None:
        settings = load_text(
            ROUTE,
            {
                "POMAGENT_AGENT__MAX_SESSIONS": "7",
                "POMAGENT_AGENT__BOOT_FROM_LAST_GOOD": "true",
                "POMAGENT_DRAIN__TIMEOUT_S": "1.5",
                "POMAGENT_STATUS__LISTEN": "",
                "POMAGENT_STATUS__ALLOW_USERS": '["root", 1000]',
                "POMAGENT_DEFAULTS__POOL_MAX": "9",
                "pomagent_defaults__warm": "off",
            },
        )
        assert (settings.agent.max_sessions, settings.agent.boot_from_last_good) == (7, True)
        assert settings.drain.timeout_s == 1.5
        assert (settings.status.listen, settings.status.allow_users) == (None, ("root", "1000"))
        assert (settings.routes[0].pool_max, settings.routes[0].warm) == (9, "off")

    def test_gateways_and_credentials_can_be_changed_and_added(self, load_text: Load) -> None:
        settings = load_text(
            ROUTE + 'gateway = "corp"\n[gateways.corp]\nurl = "https://old.example.com"\nmax_dials = 3\n',
            {
                "POMAGENT_GATEWAYS__CORP__URL": "https://new.example.com",
                "POMAGENT_CREDENTIALS__DEFAULT__ENV": "SECRET",
                "SECRET": "token",
            },
        )
        assert HostPort("new.example.com", 443) == settings.routes[0].gateway.address
        assert settings.routes[0].gateway.max_dials == 3
        assert settings.routes[0].credential

    def test_files_to_include_can_come_from_it(self, load_text: Load, write: Write) -> None:
        write("more.toml", OTHER)
        assert len(load_text(ROUTE, {"POMAGENT_AGENT__INCLUDE": '["more.toml"]'}).routes) == 2

    @pytest.mark.parametrize("name", ["POMAGENT_CONFIG", "POMAGENT_TOKEN", "POMAGENT_PORT_80_TCP", "OTHER__AGENT"])
    def test_other_variables_are_left_alone(self, name: str, load_text: Load) -> None:
        assert load_text(ROUTE, {name: "x"}).routes

    @pytest.mark.parametrize("name", ["POMAGENT_TOKEN", "POMAGENT_AGENT__TOKEN", "POMAGENT_CREDENTIALS__X"])
    def test_the_variable_of_a_credential_is_no_setting(self, name: str, load_text: Load) -> None:
        settings = load_text(f'[credentials.default]\nenv = "{name}"\n{ROUTE}', {name: "hunter2"})
        assert settings.routes[0].credential

    @pytest.mark.parametrize(
        ("name", "value", "problem"),
        [
            ("POMAGENT_AGENT__LOG_LEVLE", "debug", 'unknown key; did you mean "log_level"?'),
            ("POMAGENT_AGENT__MAX_SESSIONS", "many", "is a string; expected a whole number"),
            ("POMAGENT_AGENT__MAX_SESSIONS", "0", "is 0; expected at least 1"),
            ("POMAGENT_AGENT__INCLUDE", "a.toml", "is a string; expected an array"),
            ("POMAGENT_AGNET__LOG_LEVEL", "debug", 'there is no table [agnet]; did you mean "agent"?'),
            ("POMAGENT_AGENT", "{}", "sets a whole table; expected POMAGENT_AGENT__KEY"),
            ("POMAGENT_GATEWAYS__CORP", "x", "sets a whole table; expected POMAGENT_GATEWAYS__NAME__KEY"),
            ("POMAGENT_ROUTES", "[]", "routes cannot be set from the environment; expected [[routes]] in a file"),
            ("POMAGENT_STATUS__LISTEN", "0.0.0.0:1", "0.0.0.0:1 is not loopback; expected a loopback address, or "
             "unsafe_listen = true beside it"),
            ("POMAGENT_AGENT__LOG_LEVEL__X", "1", "expected 'debug', 'info', 'warning' or 'error'"),
        ],
    )  # fmt: skip
    def test_a_problem_names_the_variable(self, name: str, value: str, problem: str, load_text: Load) -> None:
        with pytest.raises(ConfigError) as refusal:
            load_text(ROUTE, {name: value})
        assert f"environment: {name.removesuffix('__X')}: {problem}" == str(refusal.value)

    def test_a_gateway_of_the_environment_alone_is_reported_there(self, load_text: Load) -> None:
        with pytest.raises(ConfigError, match=r"^environment: POMAGENT_GATEWAYS__CORP__URL: is missing"):
            load_text(ROUTE, {"POMAGENT_GATEWAYS__CORP__MAX_DIALS": "3"})
        with pytest.raises(ConfigError, match=r"^environment: POMAGENT_CREDENTIALS__CORP: has no source"):
            load_text(ROUTE, {"POMAGENT_CREDENTIALS__CORP__SCHEME": "bearer"})


class TestIncludes:
    def test_files_follow_the_main_file_in_the_order_of_their_names(self, load_text: Load, write: Write) -> None:
        write("routes.d/20.toml", OTHER)
        write("routes.d/10.toml", OTHER.replace("b.", "c.").replace("127.0.0.1", "127.0.0.2"))
        names = [route.name for route in load_text(INCLUDE + ROUTE).routes]
        assert names == ["a.example.com-6379", "c.example.com-22", "b.example.com-22"]

    def test_the_main_file_may_have_no_routes_of_its_own(self, load_text: Load, write: Write) -> None:
        write("routes.d/a.toml", OTHER)
        assert len(load_text(INCLUDE).routes) == 1

    def test_a_file_of_two_patterns_is_read_once(self, load_text: Load, write: Write) -> None:
        write("routes.d/a.toml", OTHER)
        include = '[agent]\ninclude = ["routes.d/*.toml", "*.toml", "routes.d/a.toml", "*/a.toml"]\n'
        assert len(load_text(include + ROUTE).routes) == 2

    def test_an_absolute_pattern_is_one(self, load_text: Load, write: Write, directory: Path) -> None:
        write("routes.d/a.toml", OTHER)
        assert len(load_text(f'[agent]\ninclude = ["{directory}/*.d/*.toml"]\n' + ROUTE).routes) == 2

    def test_hidden_files_are_included_only_by_a_pattern_for_them(self, load_text: Load, write: Write) -> None:
        write("routes.d/.hidden.toml", OTHER)
        assert len(load_text(INCLUDE + ROUTE).routes) == 1
        assert len(load_text('[agent]\ninclude = ["routes.d/.*.toml"]\n' + ROUTE).routes) == 2

    def test_relative_paths_are_relative_to_the_file_they_stand_in(self, load_text: Load, write: Write) -> None:
        token = write("routes.d/token.jwt", "token")
        write("routes.d/a.toml", '[credentials.default]\nservice_account_file = "token.jwt"\n')
        credential = load_text(INCLUDE + ROUTE).routes[0].credential
        assert credential
        assert token == credential.path

    def test_names_declared_in_one_file_are_known_in_all(self, load_text: Load, write: Write) -> None:
        write("routes.d/a.toml", OTHER + 'gateway = "corp"\n')
        write("routes.d/b.toml", '[gateways.corp]\nurl = "https://edge.example.com"\n')
        assert [route.gateway.name for route in load_text(INCLUDE + ROUTE).routes] == ["a.example.com:443", "corp"]

    def test_file_of_comments_is_accepted(self, load_text: Load, write: Write) -> None:
        write("routes.d/a.toml", "# nothing today\n")
        assert load_text(INCLUDE + ROUTE).routes


class TestWatched:
    def test_everything_that_was_read_is_watched(self, load_text: Load, write: Write, directory: Path) -> None:
        token = write("token.jwt", "token")
        route = write("routes.d/a.toml", OTHER)
        settings = load_text(INCLUDE + ROUTE + '[credentials.default]\nservice_account_file = "token.jwt"\n')
        assert {directory / "agent.toml", directory / "routes.d", route, token} == settings.watched

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("none.d/*.toml", {"none.d"}),
            ("*/routes/*.toml", {".", "x", "none.d", "x/routes"}),
            ("x/**/*.toml", {"x", "x/routes", "x/other"}),
        ],
    )
    def test_directories_where_more_files_may_appear_are_watched(
        self, pattern: str, expected: set[str], load_text: Load, directory: Path
    ) -> None:
        (directory / "x/routes").mkdir(parents=True)
        (directory / "x/other").mkdir()
        (directory / "none.d").mkdir()
        settings = load_text(f'[agent]\ninclude = ["{pattern}"]\n{ROUTE}')
        assert {directory / name for name in [*expected, "agent.toml"]} == settings.watched


class TestHash:
    TEXT = INCLUDE + ROUTE + '[credentials.default]\nservice_account_file = "token.jwt"\n'

    @pytest.fixture
    def sha(self, load_text: Load, write: Write) -> str:
        write("routes.d/a.toml", OTHER)
        write("token.jwt", "token")
        return load_text(self.TEXT).sha

    def test_the_same_files_have_the_same_hash(self, sha: str, load_text: Load) -> None:
        assert sha == load_text(self.TEXT).sha

    def test_comment_in_the_main_file_changes_the_hash(self, sha: str, load_text: Load) -> None:
        assert sha != load_text(self.TEXT + "#").sha

    @pytest.mark.parametrize(("name", "content"), [("routes.d/a.toml", OTHER + "#"), ("token.jwt", "another")])
    def test_any_other_file_changes_the_hash(
        self, name: str, content: str, sha: str, load_text: Load, write: Write
    ) -> None:
        write(name, content)
        assert sha != load_text(self.TEXT).sha

    def test_hash_is_short(self, sha: str) -> None:
        assert len(sha) == 12


def test_a_meant_empty_file_has_no_routes(load_text: Load) -> None:
    assert load_text("", {"POMAGENT_AGENT__ALLOW_EMPTY": "true"}).routes == ()


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(directory: Path) -> None:
    Path("agent.toml").write_bytes(b"\xef\xbb\xbf" + ROUTE.replace("\n", "\r\n").encode())
    assert len(load(Path("agent.toml"), {}).routes) == 1


@pytest.mark.parametrize(
    ("uid", "environ", "expected"),
    [
        (0, {"XDG_RUNTIME_DIR": "/run/user/0"}, "/run/pomagent/control.sock"),
        (997, {"RUNTIME_DIRECTORY": "/run/pomagent"}, "/run/pomagent/control.sock"),
        (1000, {"XDG_RUNTIME_DIR": "/run/user/1000"}, "/run/user/1000/pomagent/control.sock"),
        (1000, {"RUNTIME_DIRECTORY": "/run/other", "XDG_RUNTIME_DIR": "/x"}, "/x/pomagent/control.sock"),
        (1000, {}, None),
    ],
)
def test_the_control_socket_is_where_its_user_may_create_it(
    uid: int, environ: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: uid)
    assert default_control_socket(environ) == (Path(expected) if expected else None)


class TestPositions:
    @pytest.fixture
    def settings(self, load_text: Load, write: Write) -> Settings:
        write("routes.d/a.toml", "# a comment\n" + OTHER)
        return load_text(INCLUDE + ROUTE, {"POMAGENT_DRAIN__TIMEOUT_S": "1"})

    @pytest.mark.parametrize(
        ("key", "where"),
        [
            ("routes.a.example.com-6379.listen", "agent.toml:5"),
            ("routes.a.example.com-6379.pool_max", "agent.toml:3"),
            ("routes.b.example.com-22.listen", "routes.d/a.toml:4"),
            ("agent.include", "agent.toml:2"),
            ("routes.nobody.listen", "agent.toml"),
        ],
    )
    def test_position_of_a_key_is_known_after_the_load(self, key: str, where: str, settings: Settings) -> None:
        assert f"{where}: {key}: is taken" == str(settings.problem(key, "is taken"))

    def test_a_key_of_the_environment_stands_in_no_file(self, settings: Settings) -> None:
        assert str(settings.problem("drain.timeout_s", "x")) == "environment: drain.timeout_s: x"
