"""Starts a command that cannot outlive its parent: ``python tether.py PARENT COMMAND …``.

The kernel delivers the parent's death as SIGKILL. It is asked here, in a process of its own that then becomes the
command, because code between fork and exec is unsafe in a parent with threads (grpc's, ours) and Python warns of it.
The death that counts is that of the *thread* that started the child, so start children from a thread that stays.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tethered(*command: str) -> list[str]:
    """The same command, killed by the kernel as soon as this process is gone."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def _become(parent: int, command: list[str]) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before prctl, so no signal will ever come
        raise SystemExit("parent is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
