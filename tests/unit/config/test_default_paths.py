"""Where a user's commands and agents keep their state."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from pomagent.config.default_paths import SYSTEM_DIRECTORY, personal_state_directory, state_directory


@pytest.mark.parametrize("environ", [{}, {"XDG_STATE_HOME": "/home/alice/state"}])
def test_logins_of_root_are_below_its_home_and_the_agents_state_is_not(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("HOME", "/home/alice")  # as some sudo configurations leave it
    assert personal_state_directory(environ) == Path(pwd.getpwuid(0).pw_dir, ".local/state/pomagent")
    assert state_directory(environ) == SYSTEM_DIRECTORY


@pytest.mark.parametrize("own", [0, 1000])
def test_a_named_state_directory_wins(own: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: own)
    assert personal_state_directory({"STATE_DIRECTORY": "/srv/state"}) == Path("/srv/state")
