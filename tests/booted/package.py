"""The Debian package of this source tree, for each release that is booted."""

from pathlib import Path

from tests import processes
from tests.booted.machine import Machine
from tests.booted.trees import cache, lock
from tests.gateway.waiting import scaled

ROOT = Path(__file__).parents[2]
BUILD_TIMEOUT_S = 300


def build(suite: str, output: Path) -> Path:
    """Build it into a directory and return its path. Blocks: what pip has not cached comes from a package index."""
    with lock(cache() / "package.lock"):
        done = processes.run(
            [str(ROOT / "scripts/build-deb"), "--suite", suite, "--output", str(output)],
            check=True, capture_output=True, text=True, timeout=scaled(BUILD_TIMEOUT_S),
        )  # fmt: skip
    return Path(done.stdout.splitlines()[-1])


def install(machine: Machine, package: Path) -> None:
    """With nothing but dpkg: no package index can be reached from there. Blocks."""
    machine.path("/root/pomagent.deb").write_bytes(package.read_bytes())
    machine.run("dpkg", "--install", "/root/pomagent.deb")
