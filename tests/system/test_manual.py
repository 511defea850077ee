"""The manual pages as rendered by man."""

import shutil
from pathlib import Path

import pytest

from pomagent.cli import commands
from pomagent.config.reference import tables
from tests.support.agent import processes

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "man").glob("*.[0-9]"))


@pytest.fixture(autouse=True)
def programs() -> None:
    missing = [name for name in ("man", "groff") if not shutil.which(name)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
@pytest.mark.parametrize("encoding", ["UTF-8", "ascii"])
def test_man_and_groff_accept_the_page_without_warnings(page: Path, encoding: str) -> None:
    assert _run("man", "--warnings=w", f"--encoding={encoding}", "--local-file", str(page)).stderr == ""
    device = {"UTF-8": "utf8", "ascii": "ascii"}[encoding]
    assert _run("groff", "-man", "-ww", "-z", f"-T{device}", str(page)).stderr == ""


def test_the_manual_has_every_command() -> None:
    assert [name for name in commands() if f"pomagent {name}" not in _shown("pomagent.1")] == []


def test_the_manual_has_every_exit_code_and_signal() -> None:
    shown = _shown("pomagent.1")
    assert [word for word in ("69", "74", "77", "78", "SIGTERM", "SIGHUP", "SIGUSR1") if word not in shown] == []


def test_the_manual_has_every_setting() -> None:
    shown = _shown("agent.toml.5")
    lines = {line.strip() for line in shown.splitlines()}
    assert [header for header, _ in tables() if header not in lines] == []
    keys = {line.split()[0] for line in lines if line}
    assert [key.name for _, listed in tables() for key in listed if key.name not in keys] == []


def _shown(page: str) -> str:
    return _run("man", "--encoding=UTF-8", "--local-file", str(ROOT / "man" / page)).stdout


def _run(*command: str) -> "processes.subprocess.CompletedProcess[str]":
    environment = {"PATH": "/usr/bin:/bin", "MANWIDTH": "500", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""}
    return processes.run(list(command), capture_output=True, text=True, check=True, timeout=60, env=environment)
