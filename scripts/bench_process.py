"""Reads processor time and memory of a process from the kernel."""

import os
from pathlib import Path


def cpu_s(pid: int) -> float:
    """Return the processor time of all threads so far, in steps of 10 ms."""
    _, _, fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")
    user, system = fields.split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def memory_kb(pid: int) -> int:
    """Resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def has_ended(pid: int) -> bool:
    """Return whether a process has ended, reaped or not."""
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" in status.read_text()
