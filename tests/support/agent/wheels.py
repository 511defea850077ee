"""Collects everything that an installation needs, for machines without a package index."""

import sys
from pathlib import Path

from tests.gateway.waiting import scaled
from tests.support.agent import processes

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 300


def fill(directory: Path, *options: str) -> Path:
    """Download the wheels for this Python, or for the one in pip's ``options``. Blocks. Needs a package index."""
    _pip("wheel", "--no-deps", f"--wheel-dir={directory}", str(ROOT))
    (ours,) = directory.glob("pomagent-*.whl")
    _pip("download", f"--dest={directory}", *(options or ["--only-binary=:all:"]), str(ours), "pip")
    return directory


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    processes.run(command, check=True, timeout=scaled(TIMEOUT_S))
