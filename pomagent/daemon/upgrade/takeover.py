"""The new process of an upgrade: proves that it can serve, and reports nothing to systemd until it is the main one."""

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
from pomagent.daemon.upgrade.old_processes import OldProcess
from pomagent.errors import PomagentError
from pomagent.listeners.inherited import Inherited
from pomagent.runtime.exit_codes import CANNOT_SERVE, INVALID, NOT_PERMITTED
from pomagent.runtime.sd_notify import Notifier

WARM_UP_S: Final = 2.0
"""Maximum seconds for warming up, because a gateway that does not answer must not prevent an upgrade."""
LOOK_EVERY_S: Final = 0.02
STEP_TIMEOUT_S: Final = 30.0
"""Seconds for the next message. The old process has shorter timeouts and kills this one after them."""


class TakeoverFailed(PomagentError):
    """This process does not become the main one, and the old one goes on."""

    def __init__(self, message: str, code: int = CANNOT_SERVE) -> None:
        super().__init__(message)
        self.code = code


class Takeover:
    """The additional steps of a start that replaces another process. Does nothing at an ordinary start."""

    def __init__(self, sock: socket.socket | None = None, inherited: Sequence[Inherited] = ()) -> None:
        """``sock`` is the channel to the old process."""
        self._channel = Channel(sock) if sock is not None else None
        self._old_state: Message = {}
        self.inherited = list(inherited)
        """Sockets that listen already."""
        self.old_processes: list[OldProcess] = []
        """Processes that still have sessions once this one is the main process."""

    def receive(self) -> None:
        """Receive the sockets and the state of the old process. Blocks. Raises TakeoverFailed."""
        if self._channel is None:
            return
        self._send("hello", pid=os.getpid(), version=__version__)
        while not self._old_state:
            message, sockets = self._next()
            if message.get("is") == "sockets":
                pairs = zip(sockets, message["names"], strict=True)
                self.inherited += [Inherited(sock, name) for sock, name in pairs]
            elif message.get("is") == "predecessors":
                pairs = zip(sockets, message["processes"], strict=True)
                self.old_processes += [_old_process(Channel(sock), state) for sock, state in pairs]
            elif message.get("is") == "begin":
                self._old_state = message

    def hold(self, agent: Agent, notifier: Notifier) -> None:
        """Accept no client and send systemd nothing until ``complete``."""
        if self._channel is not None:
            agent.listeners.accepting.clear()
            notifier.hold()

    def fail(self, error: str, code: int, problems: Sequence[str] = ()) -> None:
        """Report to the old process why this one ends, in the words of the log."""
        if self._channel is not None:
            with suppress(ChannelClosed):
                self._channel.send({"is": "failed", "error": error, "code": code, "problems": list(problems)})

    def complete(self, agent: Agent, notifier: Notifier) -> None:
        """Become the main process, once everything is loaded and bound. Blocks. Raises TakeoverFailed."""
        if self._channel is None:
            return
        self._reject_lost_routes(agent)
        self._reject_lost_inputs(agent)
        self._pause(agent)
        _warm_up(agent)
        self._send("ready")
        self._expect("serve")
        agent.listeners.accepting.set()
        self._send("serving")
        self._expect("main")
        self._send("taken")
        notifier.release()
        self.old_processes.append(_old_process(self._channel, self._old_state))

    def _reject_lost_routes(self, agent: Agent) -> None:
        """Fail for a busy address, which at an ordinary start costs its route only: the old process serves it."""
        quarantined_before = set(self._old_state.get("quarantined", ()))
        lost = [reason for name, reason in agent.quarantined.items() if name not in quarantined_before]
        if lost:
            error = "a route cannot be bound that the old process may serve"
            self.fail(error, NOT_PERMITTED, lost)
            raise TakeoverFailed(error, NOT_PERMITTED)

    def _reject_lost_inputs(self, agent: Agent) -> None:
        """Fail for a token or certificate that is missing now: the old process may still have it in memory."""
        missed_before = set(self._old_state.get("waits_for", ()))
        lost = [str(problem) for problem in agent.waits_for if problem.key not in missed_before]
        if lost:
            error = "a credential or certificate cannot be read that the old process may use"
            self.fail(error, INVALID, lost)
            raise TakeoverFailed(error, INVALID)

    def _pause(self, agent: Agent) -> None:
        """Pause the routes that an operator has paused in the old process."""
        for name in self._old_state.get("paused", ()):
            if (forwarder := agent.forwarder(name)) is not None:
                forwarder.pause()

    def _send(self, kind: str, **more: object) -> None:
        assert self._channel is not None
        try:
            self._channel.send({"is": kind, **more})
        except ChannelClosed as error:
            raise TakeoverFailed("the old process has ended") from error

    def _expect(self, kind: str) -> None:
        message, _ = self._next()
        if message.get("is") != kind:
            raise TakeoverFailed(f'the old process sent "{message.get("is")}" instead of "{kind}"')

    def _next(self) -> tuple[Message, list[socket.socket]]:
        assert self._channel is not None
        try:
            return self._channel.receive(STEP_TIMEOUT_S)
        except (ChannelClosed, TimeoutError) as error:
            raise TakeoverFailed("the old process exited or cancelled the upgrade") from error


def _old_process(channel: Channel, state: Message) -> OldProcess:
    return OldProcess(channel, int(state["pid"]), str(state["version"]), int(state["sessions"]))


def _warm_up(agent: Agent) -> None:
    with gevent.Timeout(WARM_UP_S, False):
        while not agent.running.is_warm:
            gevent.sleep(LOOK_EVERY_S)
