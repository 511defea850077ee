"""What the kernel knows about a process: processor time and memory."""

import os
from pathlib import Path


def cpu_s(pid: int) -> float:
    """Processor time so far, of all its threads, as getrusage(2) counts it for itself; to 10 ms."""
    _, _, fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")
    user, system = fields.split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def memory_kb(pid: int) -> int:
    """Resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def has_ended(pid: int) -> bool:
    """A child of ours, waited for or not."""
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" in status.read_text()
