"""Debian trees for booted machines, made once per release by debootstrap and cached outside the repository."""

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
"""Releases with the oldest supported systemd (252) and with a newer one (257)."""
PACKAGES = ("systemd", "systemd-sysv", "python3", "ca-certificates")
# Units that no test needs and that make each boot longer.
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "console-getty.service", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "fstrim.timer", "systemd-logind.service", "systemd-network-generator.service", "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-user-sessions.service",
    "sys-fs-fuse-connections.mount", "dev-hugepages.mount", "modprobe@.service", "ldconfig.service",
)  # fmt: skip
BUILD_TIMEOUT_S = 900
KEEP = 2
"""Number of trees per release that stay in the cache."""


def tree(suite: str) -> Path:
    """Return the root of a tree of this release. Blocks for about a minute the first time."""
    place = cache()
    root = place / f"{suite}-{_recipe(suite)}"
    with lock(place / f"{suite}.lock"):
        if not root.exists():
            _build(suite, root)
            _forget(place.glob(f"{suite}-*"))
    return root


def cache() -> Path:
    """Return the directory that keeps slow artifacts between test runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = Path(base) / "pomagent-tests"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _recipe(suite: str) -> str:
    return hashlib.sha256(repr((suite, PACKAGES, MASKED)).encode()).hexdigest()[:12]


@contextmanager
def lock(path: Path, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a file lock, exclusively or, with LOCK_SH, shared. Blocks."""
    with path.open("w") as file:
        fcntl.flock(file, kind)
        yield


def _build(suite: str, root: Path) -> None:
    """Build a tree as a draft and rename it when it is complete. Blocks."""
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
    (draft / "etc/machine-id").write_text("")  # otherwise the first boot applies all presets
    draft.rename(root)


def _mirror() -> str:
    """Return the Debian mirror of this machine."""
    shown = processes.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    mirrors = [line for line in shown.stdout.splitlines() if "security" not in line]
    if not mirrors:
        raise RuntimeError("no Debian mirror in this machine's apt configuration; run apt-get update")
    return mirrors[0]


def _forget(trees: Iterator[Path]) -> None:
    """Remove all but the newest trees. KEEP is more than one because another test run may have booted an older tree."""
    for old in sorted(trees, key=lambda path: path.stat().st_mtime)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or SUITES:
        print(tree(name))
