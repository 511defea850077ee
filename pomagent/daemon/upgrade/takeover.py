"""The new process of an upgrade: it proves that it can serve, and is silent until it is the main process."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import gevent

from pomagent import __version__
from pomagent.agent import Agent
from pomagent.daemon.upgrade.channel import Channel, ChannelClosed, Message
from pomagent.daemon.upgrade.old_processes import Predecessor
from pomagent.errors import PomagentError
from pomagent.listeners.inherited import Inherited
from pomagent.runtime.exit_codes import CANNOT_SERVE, NOT_PERMITTED
from pomagent.runtime.sd_notify import Notifier

WARM_UP_S: Final = 2.0
"""At most: a gateway that does not answer is no reason against an upgrade."""
LOOK_EVERY_S: Final = 0.02
STEP_TIMEOUT_S: Final = 30.0
"""For the next word of the old process; it has timeouts of its own, and kills this one if they are over."""


class TakeoverFailed(PomagentError):
    """This process does not become the main one; the old one goes on."""

    def __init__(self, message: str, code: int = CANNOT_SERVE) -> None:
        super().__init__(message)
        self.code = code


class Takeover:
    """What has to happen at a start beyond the start itself; at an ordinary one, nothing."""

    def __init__(self, sock: socket.socket | None = None, inherited: Sequence[Inherited] = ()) -> None:
        """``sock`` is the channel to the old process."""
        self._channel = Channel(sock) if sock is not None else None
        self._account: Message = {}
        self.inherited = list(inherited)
        """The sockets that listen already."""
        self.predecessors: list[Predecessor] = []
        """Whoever still has sessions once this process is the main one."""

    def receive(self) -> None:
        """Take what the old process hands over, to be used or left. Blocks. Raises TakeoverFailed."""
        if self._channel is None:
            return
        self._say("hello", pid=os.getpid(), version=__version__)
        while not self._account:
            message, sockets = self._next()
            if message.get("is") == "sockets":
                pairs = zip(sockets, message["names"], strict=True)
                self.inherited += [Inherited(sock, name) for sock, name in pairs]
            elif message.get("is") == "predecessors":
                pairs = zip(sockets, message["processes"], strict=True)
                self.predecessors += [_predecessor(Channel(sock), account) for sock, account in pairs]
            elif message.get("is") == "begin":
                self._account = message

    def hold(self, agent: Agent, notifier: Notifier) -> None:
        """Accept nothing and say nothing until ``complete``."""
        if self._channel is not None:
            agent.listeners.accepting.clear()
            notifier.hold()

    def fail(self, error: str, code: int, problems: Sequence[str] = ()) -> None:
        """Tell the old process why this one ends, in the words of the log."""
        if self._channel is not None:
            with suppress(ChannelClosed):
                self._channel.send({"is": "failed", "error": error, "code": code, "problems": list(problems)})

    def complete(self, agent: Agent, notifier: Notifier) -> None:
        """All is loaded and bound: become the main process. Blocks. Raises TakeoverFailed."""
        if self._channel is None:
            return
        self._compare(agent)
        self._pause(agent)
        _warm_up(agent)
        self._say("ready")
        self._expect("serve")
        agent.listeners.accepting.set()
        self._say("serving")
        self._expect("main")
        self._say("taken")
        notifier.release()
        self.predecessors.append(_predecessor(self._channel, self._account))

    def _compare(self, agent: Agent) -> None:
        """An address that cannot be bound costs its route only at a start; here another process serves it."""
        had = set(self._account.get("quarantined", ()))
        lost = [why for name, why in agent.quarantined.items() if name not in had]
        if lost:
            error = "a route cannot be bound that the old process may serve"
            self.fail(error, NOT_PERMITTED, lost)
            raise TakeoverFailed(error, NOT_PERMITTED)

    def _pause(self, agent: Agent) -> None:
        """What an operator has paused stays so: nobody has resumed it."""
        for name in self._account.get("paused", ()):
            if (forwarder := agent.forwarder(name)) is not None:
                forwarder.pause()

    def _say(self, what: str, **more: object) -> None:
        assert self._channel is not None
        try:
            self._channel.send({"is": what, **more})
        except ChannelClosed as error:
            raise TakeoverFailed("the old process has ended") from error

    def _expect(self, what: str) -> None:
        message, _ = self._next()
        if message.get("is") != what:
            raise TakeoverFailed(f'the old process said "{message.get("is")}" instead of "{what}"')

    def _next(self) -> tuple[Message, list[socket.socket]]:
        assert self._channel is not None
        try:
            return self._channel.receive(STEP_TIMEOUT_S)
        except (ChannelClosed, TimeoutError) as error:
            raise TakeoverFailed("the old process has ended, or wants this one no more") from error


def _predecessor(channel: Channel, account: Message) -> Predecessor:
    return Predecessor(channel, int(account["pid"]), str(account["version"]), int(account["sessions"]))


def _warm_up(agent: Agent) -> None:
    with gevent.Timeout(WARM_UP_S, False):
        while not agent.running.is_warm:
            gevent.sleep(LOOK_EVERY_S)
