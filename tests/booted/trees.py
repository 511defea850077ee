"""Debian trees to boot, one per release, made by debootstrap once and kept outside the repository."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.agent import processes

SUITES = ("bookworm", "trixie")
"""The oldest systemd that is supported (252), and a newer one."""
PACKAGES = ("systemd", "systemd-sysv", "python3", "ca-certificates")
# What a test never needs, and what would only make each boot longer.
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "console-getty.service", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "fstrim.timer", "systemd-logind.service", "systemd-network-generator.service", "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-user-sessions.service",
    "sys-fs-fuse-connections.mount", "dev-hugepages.mount", "modprobe@.service", "ldconfig.service",
)  # fmt: skip
BUILD_TIMEOUT_S = 900
KEEP = 2
"""How many trees of each release stay; older recipes' go."""


def tree(suite: str) -> Path:
    """The root of a tree of this release. Blocks: about a minute the first time, no time later."""
    place = cache()
    root = place / f"{suite}-{_recipe(suite)}"
    with lock(place / f"{suite}.lock"):
        if not root.exists():
            _build(suite, root)
            _forget(place.glob(f"{suite}-*"))
    return root


def cache() -> Path:
    """Where what takes long to make is kept from run to run."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = Path(base) / "pomagent-tests"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _recipe(suite: str) -> str:
    return hashlib.sha256(repr((suite, PACKAGES, MASKED)).encode()).hexdigest()[:12]


@contextmanager
def lock(path: Path, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """One process at a time, or any number with LOCK_SH."""
    with path.open("w") as file:
        fcntl.flock(file, kind)
        yield


def _build(suite: str, root: Path) -> None:
    """Beside its place, and moved there when it is complete."""
    draft = root.with_name(f"{root.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(draft), _mirror()]
    done = processes.run(
        command,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=BUILD_TIMEOUT_S,
        env=os.environ | {"DPKG_FORCE": "unsafe-io"},
    )
    if done.returncode:
        raise RuntimeError(f"debootstrap {suite}: {done.stdout.decode(errors='replace')[-2000:]}")
    for unit in MASKED:
        (draft / "etc/systemd/system" / unit).symlink_to("/dev/null")
    for archive in (draft / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    (draft / "etc/hostname").write_text("bastion\n")
    (draft / "etc/machine-id").write_text("")  # or the first boot would ask for all presets again
    draft.rename(root)


def _mirror() -> str:
    """Where this machine gets its Debian from."""
    shown = processes.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    mirrors = [line for line in shown.stdout.splitlines() if "security" not in line]
    if not mirrors:
        raise RuntimeError("no Debian mirror in this machine's apt configuration; run apt-get update")
    return mirrors[0]


def _forget(trees: Iterator[Path]) -> None:
    """A tree that is still booted somewhere may be among the older ones: KEEP is more than one for that."""
    for old in sorted(trees, key=lambda path: path.stat().st_mtime)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or SUITES:
        print(tree(name))
