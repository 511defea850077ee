"""All that an installation needs, in a directory, for machines that no package index can be reached from."""

import sys
from pathlib import Path

from tests.gateway.waiting import scaled
from tests.support.agent import processes

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 300


def fill(directory: Path, *options: str) -> Path:
    """For this Python, or for the one that the options of pip name. Blocks: comes from a package index."""
    _pip("wheel", "--no-deps", f"--wheel-dir={directory}", str(ROOT))
    (ours,) = directory.glob("pomagent-*.whl")
    _pip("download", f"--dest={directory}", *(options or ["--only-binary=:all:"]), str(ours), "pip")
    return directory


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    processes.run(command, check=True, timeout=scaled(TIMEOUT_S))
