"""The end of an old process: it reports its session count to the new one, which may limit or end the sessions."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, Protocol

import gevent
from gevent.pool import Group

from pomagent.agent import Agent
from pomagent.daemon.upgrade.channel import Channel, ChannelClosed

REPORT_EVERY_S: Final = 0.5
"""Seconds between two reports of the session count."""


class Limits(Protocol):
    """Ends sessions: ``Drain``."""

    def limit(self, timeout_s: float) -> None: ...
    def hurry(self) -> None: ...


class Retirement:
    """A context manager around the drain of a process that has been replaced."""

    def __init__(self, channel: Channel, agent: Agent, limits: Limits) -> None:
        self._channel = channel
        self._agent = agent
        self._limits = limits
        self._group = Group()

    def __enter__(self) -> None:
        self._group.spawn(self._report).name = "sessions left"
        self._group.spawn(self._obey).name = "successor"

    def __exit__(self, *_: object) -> None:
        self._group.kill()
        self._channel.close()

    def _report(self) -> None:
        """Send the session count after each change. Never returns."""
        sent = -1
        while True:
            if (count := self._agent.session_count) != sent:
                self._channel.try_to_send({"is": "sessions", "count": count})
                sent = count
            gevent.sleep(REPORT_EVERY_S)

    def _obey(self) -> None:
        """Obey the new process until it ends. After that, the sessions go on under the limits that they have."""
        with suppress(ChannelClosed):
            while True:
                message, _ = self._channel.receive()
                if message.get("is") == "stop":
                    self._limits.limit(float(message["timeout_s"]))
                elif message.get("is") == "abort":
                    self._limits.hurry()
