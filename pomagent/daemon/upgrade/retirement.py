"""The last part of an old process: it tells its successor how many sessions are left, and ends when that says so."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, Protocol

import gevent
from gevent.pool import Group

from pomagent.agent import Agent
from pomagent.daemon.upgrade.channel import Channel, ChannelClosed

TELL_EVERY_S: Final = 0.5


class Limits(Protocol):
    """What ends the sessions: ``Drain``."""

    def limit(self, timeout_s: float) -> None: ...
    def hurry(self) -> None: ...


class Retirement:
    """A context manager around the drain of a process that has a successor."""

    def __init__(self, channel: Channel, agent: Agent, limits: Limits) -> None:
        self._channel = channel
        self._agent = agent
        self._limits = limits
        self._group = Group()

    def __enter__(self) -> None:
        self._group.spawn(self._tell).name = "sessions left"
        self._group.spawn(self._obey).name = "successor"

    def __exit__(self, *_: object) -> None:
        self._group.kill()
        self._channel.close()

    def _tell(self) -> None:
        """Never returns."""
        told = -1
        while True:
            if (count := self._agent.session_count) != told:
                self._channel.try_to_send({"is": "sessions", "count": count})
                told = count
            gevent.sleep(TELL_EVERY_S)

    def _obey(self) -> None:
        """Until the successor ends: without it the sessions go on as they were allowed to."""
        with suppress(ChannelClosed):
            while True:
                message, _ = self._channel.receive()
                if message.get("is") == "stop":
                    self._limits.limit(float(message["timeout_s"]))
                elif message.get("is") == "abort":
                    self._limits.hurry()
