"""Builds and installs the Debian package of this source tree for each release."""

import os
from pathlib import Path

from tests.booted.machine import Machine
from tests.booted.trees import cache, lock
from tests.gateway.waiting import scaled
from tests.support.agent import processes

ROOT = Path(__file__).parents[2]
BUILD_TIMEOUT_S = 300
LOWER = "0.0.1-1"
"""A version that every other version is newer than."""
_ENVIRONMENT = {**os.environ, "DPKG_DEB_COMPRESSOR_LEVEL": "1"}
"""Build environment with fast compression, because the package is installed twice and thrown away."""


def build(suite: str, output: Path, *options: str, tree: Path = ROOT, umask: int = -1) -> Path:
    """Build the package into a directory, unless that exists, and return its path.

    ``umask`` is the builder's, and -1 keeps the present one. Blocks: pip downloads what it has not cached.
    """
    with lock(cache() / "package.lock"):
        if not output.exists():
            draft = output.with_name(f"{output.name}-draft")
            processes.run(
                [str(tree / "scripts/build-deb"), "--suite", suite, "--output", str(draft), *options],
                check=True, capture_output=True, text=True, timeout=scaled(BUILD_TIMEOUT_S), env=_ENVIRONMENT,
                umask=umask,
            )  # fmt: skip
            draft.rename(output)  # complete: other workers use it
    (package,) = output.glob("*.deb")
    return package


def build_previous(suite: str, output: Path) -> Path:
    """Build the package of the previous commit, or of this tree with a lower version if that fails. Blocks."""
    tree = output.with_name(f"{output.name}-source")
    knows = f"test -d {tree}/pomagent/daemon/upgrade && grep -q -e --version {tree}/scripts/build_deb.py"
    script = f"mkdir -p {tree} && git -C {ROOT} archive HEAD~1 | tar -x -C {tree} && {knows}"
    with lock(cache() / "previous.lock"):
        done = processes.run(["sh", "-c", script], capture_output=True, text=True, check=False, timeout=scaled(60))
        return build(suite, output, "--version", LOWER, tree=tree if done.returncode == 0 else ROOT)


def install(machine: Machine, package: Path) -> None:
    """Install the package with dpkg, without a package index. Blocks."""
    machine.path("/root/pomagent.deb").write_bytes(package.read_bytes())
    machine.run("dpkg", "--install", "/root/pomagent.deb")
