"""Modules that each command loads: every module delays its start."""

from __future__ import annotations

import sys

import pytest

from pomagent.cli import commands
from tests.support.agent import processes


def loaded(code: str) -> set[str]:
    """Return the names of all modules loaded after a process runs this code."""
    done = processes.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, check=True
    )
    return set(done.stdout.decode().split())


RUN = "from pomagent.cli import command\ncommand('run')\nimport pomagent.daemon.service"


@pytest.fixture(scope="module")
def by_run() -> set[str]:
    return loaded(RUN)


@pytest.mark.parametrize("library", ["rich", "pygments", "requests", "urllib3", "prometheus_client"])
def test_the_agent_starts_without_the_library(library: str, by_run: set[str]) -> None:
    assert library not in by_run


def test_the_agent_loads_no_other_command(by_run: set[str]) -> None:
    assert {name for name in by_run if name.startswith("pomagent.cli.")} <= {
        "pomagent.cli.options", "pomagent.cli.run",
    }  # fmt: skip


def test_libraries_hidden_from_the_agent_can_still_be_imported() -> None:
    assert "rich.console" in loaded(f"{RUN}\nimport rich.console")


@pytest.mark.parametrize("command", ["status", "sessions", "wait", "reload", "upgrade", "pause", "log-level"])
def test_a_client_command_loads_neither_models_nor_the_event_loop(command: str) -> None:
    modules = loaded(f"from pomagent.cli import command\ncommand({command!r})")
    assert modules & {"pydantic", "pydantic_settings", "gevent", "structlog", "rich", "pomagent.settings"} == set()


def test_every_command_is_registered_under_its_name() -> None:
    assert [name for name, command in commands().items() if command.name != name] == []


def test_preload_loads_everything_but_modules_of_commands() -> None:
    before = loaded(f"{RUN}\nfrom pomagent.daemon import preload\npreload.load_all()")
    assert {"requests", "prometheus_client", "pomagent.credentials.edge_api", "pomagent.admin.status.page"} <= before
    assert not [
        name for name in before if name.startswith(("pomagent.credentials.login.flow", "pomagent.config.desktop"))
    ]
