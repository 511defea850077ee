"""Counts and ends the sessions of old processes, which an upgrade has left running."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gevent.pool import Group

from pomagent.daemon.upgrade.channel import Channel, ChannelClosed


@dataclass(slots=True, eq=False)
class OldProcess:
    """One old process, as it describes itself."""

    channel: Channel
    pid: int
    version: str
    session_count: int = 0

    @property
    def document(self) -> dict[str, Any]:
        return {"pid": self.pid, "version": self.version, "sessions": self.session_count}


class OldProcesses:
    """All old processes. systemd signals the main process only, which passes a stop on to them."""

    def __init__(self) -> None:
        self.all: list[OldProcess] = []
        self._group = Group()

    @property
    def session_count(self) -> int:
        return sum(process.session_count for process in self.all)

    @property
    def count(self) -> int:
        """Number of processes that still run."""
        return len(self.all)

    def follow(self, processes: Iterable[OldProcess]) -> None:
        """Keep their session counts up to date until they end. Does not block."""
        for process in processes:
            self.all.append(process)
            self._group.spawn(self._receive_counts, process).name = f"old process {process.pid}"

    def hand_over(self) -> None:
        """Close the channels, because another process follows them now."""
        self._group.kill()
        for process in self.all:
            process.channel.close()
        self.all.clear()

    def stop(self, timeout_s: float) -> None:
        """End their sessions after ``timeout_s``. Does not block."""
        for process in self.all:
            process.channel.try_to_send({"is": "stop", "timeout_s": timeout_s})

    def abort(self) -> None:
        """End their sessions now. Does not block."""
        for process in self.all:
            process.channel.try_to_send({"is": "abort"})

    def _receive_counts(self, process: OldProcess) -> None:
        """Return when the process has ended."""
        with suppress(ChannelClosed):
            while True:
                message, _ = process.channel.receive()
                if message.get("is") == "sessions":
                    process.session_count = int(message["count"])
        self.all.remove(process)
        process.channel.close()
