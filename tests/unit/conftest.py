"""Fixtures for tests with an ``agent.toml``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest

from pomagent.config.load import load
from pomagent.settings import Settings

Load: TypeAlias = Callable[..., Settings]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that messages show short paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def load_text(directory: Path) -> Load:
    """Write text to ``agent.toml`` and load the file."""

    def write_and_load(text: str, environ: Mapping[str, str] | None = None) -> Settings:
        (directory / "agent.toml").write_text(text)
        return load(Path("agent.toml"), environ or {})

    return write_and_load


@pytest.fixture
def write(directory: Path) -> Callable[..., Path]:
    """Write another file beside agent.toml, by default readable only by its owner."""

    def write_file(name: str, content: str | bytes, mode: int = 0o600) -> Path:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    return write_file
