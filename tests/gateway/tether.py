"""Starts a command that cannot outlive its parent.

The kernel delivers the parent's death as SIGKILL. ``setpriv`` asks for that in a process of its own, which then becomes
the command: code between fork and exec is unsafe in a parent with threads (grpc's, ours), and Python warns of it.
The death that counts is that of the *thread* that started the child, so start children from a thread that stays.
A death in the millisecond before ``setpriv`` asks goes unnoticed. A Python script that covered that as well took 30 ms
of processor time at each start.
"""

import shutil

SETPRIV = shutil.which("setpriv")


def tethered(*command: str) -> list[str]:
    """The same command, killed by the kernel as soon as this process is gone."""
    if SETPRIV is None:
        raise FileNotFoundError("setpriv is not there; it comes with util-linux, 2.33 or newer")
    return [SETPRIV, "--pdeathsig", "KILL", "--", *command]
