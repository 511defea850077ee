"""Gets the agent into a machine: its dependencies for that machine's Python, and this source tree."""

import hashlib
import shutil
import sys
import tomllib
from pathlib import Path

from tests import processes
from tests.booted.machine import Machine
from tests.booted.trees import cache, lock

ROOT = Path(__file__).parents[2]
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_28_x86_64")
LAUNCHER = """#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "/opt/pomagent/lib")

from pomagent.__main__ import main

sys.exit(main())
"""


def install(machine: Machine, dependencies: Path) -> None:
    """Everything but a configuration. Blocks."""
    library = machine.path("/opt/pomagent/lib")
    shutil.copytree(dependencies, library)
    shutil.copytree(ROOT / "pomagent", library / "pomagent", ignore=shutil.ignore_patterns("__pycache__"))
    machine.run("python3", "-m", "compileall", "-q", "/opt/pomagent/lib")
    machine.write("/opt/pomagent/bin/pomagent", LAUNCHER, 0o755)
    machine.path("/usr/bin/pomagent").symlink_to("/opt/pomagent/bin/pomagent")
    machine.write("/usr/lib/sysusers.d/pomagent.conf", (ROOT / "systemd/pomagent.sysusers.conf").read_text())
    machine.run("systemd-sysusers")
    machine.write("/usr/lib/systemd/system/pomagent.service", (ROOT / "systemd/pomagent.service").read_text())
    machine.run("systemctl", "daemon-reload")


def dependencies_of(tree: Path) -> Path:
    """A directory with all that the agent imports, for the Python of that tree; made once. Needs a package index."""
    version = (tree / "usr/bin/python3").readlink().name.removeprefix("python")
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    name = hashlib.sha256(repr((version, wanted)).encode()).hexdigest()[:12]
    directory = cache() / f"python{version}-{name}"
    with lock(cache() / "dependencies.lock"):
        if not directory.exists():
            draft = directory.with_name(f"{directory.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            platforms = [argument for name in PLATFORMS for argument in ("--platform", name)]
            processes.run(
                [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(draft), "--only-binary=:all:",
                 "--implementation", "cp", "--python-version", version, *platforms, *wanted],
                check=True, timeout=300,
            )  # fmt: skip
            draft.rename(directory)
    return directory
