"""An agent.toml in the working directory is ignored if another user could have written it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import processes
from tests.support.agent.agent_process import clean_environment

STRANGER = 65534
COMMANDS = (
    ["whoami"],
    ["routes"],
    ["probe"],
    ["check"],
    ["status"],
    ["login", "--no-browser"],
    ["run"],
    ["wait", "--timeout", "1"],
)


def _planted(directory: Path) -> Path:
    """Write a file with a credential command that leaves a trace, and return the path of the trace."""
    trace = directory / "trace"
    (directory / "agent.toml").write_text(
        f'[credentials.default]\ncommand = ["/usr/bin/touch", "{trace}"]\n'
        '[gateways.corp]\nurl = "https://127.0.0.1:1"\n'
        '[[routes]]\nname = "redis"\nfrom = "redis.example.com:6379"\nlisten = "127.0.0.1:0"\ngateway = "corp"\n'
    )
    return trace


def _pomagent(directory: Path, *arguments: str) -> Any:
    return processes.run(
        [sys.executable, "-m", "pomagent", *arguments], cwd=directory, capture_output=True, text=True, check=False,
        timeout=60, stdin=subprocess.DEVNULL, env=clean_environment(PYTHONPATH=str(Path(__file__).parents[2])),
    )  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("owned", ["agent.toml", "."])
def test_file_of_another_user_is_ignored_by_root(tmp_path: Path, command: list[str], owned: str) -> None:
    trace = _planted(tmp_path)
    os.chown(tmp_path / owned, STRANGER, STRANGER)
    done = _pomagent(tmp_path, *command)
    assert not trace.exists()
    assert f"belongs to user {STRANGER}, not to you or root" in done.stderr
    assert done.stderr.count("is ignored") == 1, "said once"
    assert done.returncode != 0


def test_world_writable_file_is_ignored_with_the_remedy(tmp_path: Path) -> None:
    trace = _planted(tmp_path)
    (tmp_path / "agent.toml").chmod(0o666)
    done = _pomagent(tmp_path, "whoami")
    assert not trace.exists()
    assert "chmod go-w agent.toml" in done.stderr
    assert "--config ./agent.toml" in done.stderr


def test_file_of_the_same_user_is_read(tmp_path: Path) -> None:
    trace = _planted(tmp_path)
    _pomagent(tmp_path, "whoami")
    assert trace.exists()
