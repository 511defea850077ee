"""The choice of the program that shows the sign-in page."""

from __future__ import annotations

from pathlib import Path

import pytest

from pomagent.credentials.login.browser import command_for, open_browser
from pomagent.errors import CredentialError

URL = "https://auth.example.com/.pomerium/sign_in?a=1&b=%2F"


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "xdg-open").write_text("#!/bin/sh\n")
    (tmp_path / "xdg-open").chmod(0o755)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("firefox", ["firefox", URL]),
        ("firefox --new-window", ["firefox", "--new-window", URL]),
        ("'/opt/my browser/run' -u %s -x", ["/opt/my browser/run", "-u", URL, "-x"]),
        ("open --url=%s", ["open", f"--url={URL}"]),
    ],
)
def test_the_requested_command_comes_first(command, expected, path):
    assert command_for(URL, command, {"DISPLAY": ":0", "BROWSER": "other", "PATH": path}) == expected


def test_the_users_choice_comes_before_the_systems(path):
    assert command_for(URL, "", {"BROWSER": "firefox:lynx", "DISPLAY": ":0", "PATH": path}) == ["firefox", URL]


@pytest.mark.parametrize("screen", [{"DISPLAY": ":0"}, {"WAYLAND_DISPLAY": "wayland-0"}])
def test_the_system_decides_on_a_desktop(screen, path):
    assert command_for(URL, "", {**screen, "PATH": path}) == [f"{path}/xdg-open", URL]


@pytest.mark.parametrize("environ", [{}, {"DISPLAY": ""}, {"DISPLAY": ":0", "PATH": "/nowhere"}])
def test_no_command_is_found_without_a_screen_or_a_browser(environ, path):
    assert command_for(URL, "", {"PATH": path, **environ}) is None


@pytest.mark.parametrize("command", ["'", 'firefox "', "  "])
def test_a_malformed_command_is_reported(command):
    with pytest.raises(CredentialError, match="browser's command"):
        command_for(URL, command, {})


def test_a_command_that_cannot_be_started_is_reported_without_the_address():
    with pytest.raises(CredentialError, match="/nowhere/browser cannot be started: No such file") as failed:
        open_browser(["/nowhere/browser", URL])
    assert URL not in str(failed.value)
