"""The users from whom a login accepts its token."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pomagent.credentials.login import originator
from pomagent.credentials.login.originator import originators


@pytest.mark.parametrize(
    ("own", "environ", "login_uid", "users"),
    [
        (1000, {}, "1000", {0, 1000}),
        (1000, {"SUDO_UID": "1001"}, "1002", {0, 1000}),
        (0, {}, "4294967295\n", {0}),
        (0, {}, "1000", {0, 1000}),
        (0, {"SUDO_UID": "1001"}, "4294967295", {0, 1001}),
        (0, {"SUDO_UID": "x"}, "x", {0}),
    ],
)
def test_only_root_speaks_for_the_user_behind_it(
    own: int, environ: dict[str, str], login_uid: str, users: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loginuid").write_text(login_uid)
    monkeypatch.setattr(originator, "LOGIN_UID", tmp_path / "loginuid")
    monkeypatch.setattr(os, "geteuid", lambda: own)
    assert originators(environ) == users
