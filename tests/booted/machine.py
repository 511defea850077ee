"""Boots a Debian under systemd-nspawn on an overlay of directories, and removes it afterwards."""

import itertools
import os
import shlex
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.gateway.tether import tethered
from tests.gateway.waiting import scaled, wait_until
from tests.support.agent import processes

BOOT_TIMEOUT_S = 60
COMMAND_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
CGROUPS = [Path("/sys/fs/cgroup", part) for part in ("", "unified", "systemd")]
"""Places where a cgroup hierarchy for systemd may be mounted, with or without cgroup v1."""
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
REBOOTS = 133
"""Exit code of systemd-nspawn when its machine requests a reboot that the caller has to carry out."""
_NUMBERS = itertools.count(1)

# Its own mount and PID namespaces end with it when it is killed …
ALONE = ("/usr/bin/unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
# … and its own cgroup keeps two systemds from managing each other's services.
START = """
for cgroup in {cgroups}; do echo $$ >"$cgroup/cgroup.procs"; done
mount -t overlay overlay -o lowerdir={lower},upperdir={directory}/upper,workdir={directory}/work {directory}/root
exec systemd-nspawn --quiet --directory={directory}/root --machine={name} --register=no --keep-unit --boot \
    --console=pipe --kill-signal=SIGRTMIN+3 --resolv-conf=off --timezone=off --link-journal=no
"""


class Machine:
    """A context manager that boots a machine and kills it at the end.

    The machine shares the network of the thread that starts it. Its changes stay in ``layer``, on which other machines
    may be built.
    """

    def __init__(self, directory: Path, *layers: Path) -> None:
        """``layers``: the directories of its file system, the uppermost first."""
        self.name = f"pomagent-{os.getpid()}-{next(_NUMBERS)}"
        self.layer = directory / "upper"
        self._directory = directory
        self._layers = layers
        self._cgroups = [base / self.name for base in CGROUPS if (base / "cgroup.procs").exists()]
        self._process: subprocess.Popen[bytes] | None = None
        self._console = directory / "console.log"

    def __enter__(self) -> Self:
        for part in ("upper", "work", "root"):
            (self._directory / part).mkdir(parents=True, exist_ok=True)
        self._boot()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()  # --kill-child takes the whole PID namespace along
        self._process.wait(scaled(STOP_TIMEOUT_S))
        self._remove_cgroups()

    # --- actions --------------------------------------------------------------------------------------------------

    def run(self, *command: str, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S) -> Any:
        """Run a command inside as root and return ``returncode``, ``stdout`` and ``stderr`` as text. Blocks."""
        inside = ["nsenter", f"--target={self.leader}", "--mount", "--pid", "--uts", "--ipc", "--root", "--wd", "--"]
        environment = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/root", "TERM": "dumb"}
        done = processes.run(
            inside + list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=scaled(timeout_s), env=environment,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{shlex.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def path(self, inside: str) -> Path:
        """Return the path outside of a file in the running machine."""
        return Path(f"/proc/{self.leader}/root", inside.lstrip("/"))

    def write(self, inside: str, text: str, mode: int = 0o644, group: str = "root") -> None:
        """Write a draft and rename it, as editors do."""
        draft = self.path(f"{inside}.draft")
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text)
        draft.chmod(mode)
        os.chown(draft, 0, self._gid(group))
        draft.rename(self.path(inside))

    def _gid(self, group: str) -> int:
        lines = self.path("/etc/group").read_text().splitlines()
        return next(int(line.split(":")[2]) for line in lines if line.startswith(f"{group}:"))

    def reboot(self) -> None:
        """Reboot in order, into the same file system. Blocks until the machine has booted again."""
        assert self._process is not None
        self.run("systemctl", "reboot", check=False)
        self._process.wait(scaled(BOOT_TIMEOUT_S))
        assert self._process.returncode == REBOOTS, self.console
        self._remove_cgroups()
        self._boot()

    def _boot(self) -> None:
        """Boot. Blocks until every enabled unit has started or failed."""
        for cgroup in self._cgroups:
            cgroup.mkdir()
        script = START.format(
            cgroups=shlex.join(map(str, self._cgroups)), lower=":".join(map(str, self._layers)),
            directory=self._directory, name=self.name,
        )  # fmt: skip
        with self._console.open("ab") as console:
            self._process = processes.Process(
                tethered(*ALONE, "/bin/sh", "-euc", script), stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                start_new_session=True, env={"PATH": PATH, "UNIFIED_CGROUP_HIERARCHY": "1"},
            )  # fmt: skip
        wait_until(self._is_booted, BOOT_TIMEOUT_S, f"{self.name} has booted\n{self.console}")

    def _remove_cgroups(self) -> None:
        for cgroup in self._cgroups:
            wait_until(lambda here=cgroup: _is_removed(here), STOP_TIMEOUT_S, f"{cgroup} is empty")

    # --- facts ----------------------------------------------------------------------------------------------------

    @property
    def leader(self) -> int:
        """The PID of the machine's systemd outside the machine."""
        leader = self._leader()
        assert leader, f"{self.name} does not run\n{self.console}"
        return leader

    @property
    def console(self) -> str:
        return self._console.read_text(errors="replace")[-4000:]

    def _leader(self) -> int:
        assert self._process is not None
        assert self._process.poll() is None, self.console
        for nspawn in _children(self._process.pid):
            for child in _children(nspawn):
                if _name(child) == "systemd":
                    return child
        return 0

    def _is_booted(self) -> bool:
        if not self._leader():
            return False
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded")


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _is_removed(cgroup: Path) -> bool:
    """Remove a cgroup and its children if no process is left, and return whether it is gone."""
    for here, _, _ in os.walk(cgroup, topdown=False):
        with suppress(OSError):
            Path(here).rmdir()
    return not cgroup.exists()
