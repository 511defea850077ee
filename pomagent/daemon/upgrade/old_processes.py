"""Old processes of this service that still have sessions after an upgrade: how many, and when they are to end."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gevent.pool import Group

from pomagent.daemon.upgrade.channel import Channel, ChannelClosed


@dataclass(slots=True, eq=False)
class Predecessor:
    """One of them, by its own account."""

    channel: Channel
    pid: int
    version: str
    sessions: int = 0

    @property
    def document(self) -> dict[str, Any]:
        return {"pid": self.pid, "version": self.version, "sessions": self.sessions}


class Predecessors:
    """All of them. systemd signals the main process only, so that this one passes on what it is told."""

    def __init__(self) -> None:
        self.all: list[Predecessor] = []
        self._group = Group()

    @property
    def sessions(self) -> int:
        return sum(each.sessions for each in self.all)

    @property
    def count(self) -> int:
        """How many still run."""
        return len(self.all)

    def follow(self, found: Iterable[Predecessor]) -> None:
        """From now on hear what these say. Does not block."""
        for each in found:
            self.all.append(each)
            self._group.spawn(self._hear, each).name = f"old process {each.pid}"

    def let_go(self) -> None:
        """They are somebody else's now."""
        self._group.kill()
        for each in self.all:
            each.channel.close()
        self.all.clear()

    def stop(self, timeout_s: float) -> None:
        """Their sessions may last so long from now. Does not block."""
        for each in self.all:
            each.channel.try_to_send({"is": "stop", "timeout_s": timeout_s})

    def abort(self) -> None:
        """End their sessions now. Does not block."""
        for each in self.all:
            each.channel.try_to_send({"is": "abort"})

    def _hear(self, each: Predecessor) -> None:
        """Until it ends."""
        with suppress(ChannelClosed):
            while True:
                message, _ = each.channel.receive()
                if message.get("is") == "sessions":
                    each.sessions = int(message["count"])
        self.all.remove(each)
        each.channel.close()
