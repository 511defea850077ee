"""The new process of an upgrade, as the old one sees it: started, spoken to, and killed if it is of no use."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from pomagent.daemon.upgrade import launch
from pomagent.daemon.upgrade.channel import Channel, ChannelClosed, Message
from pomagent.errors import PomagentError
from pomagent.runtime.exit_codes import CANNOT_SERVE
from pomagent.runtime.threads import Threads

HELLO_TIMEOUT_S: Final = 20.0
"""For an interpreter to start and to load everything."""
END_TIMEOUT_S: Final = 2.0
"""For a process that was killed, or that has done its part, to be gone."""


class UpgradeFailed(PomagentError):
    """The new process does not take over; the message says why, and this process goes on."""

    def __init__(self, message: str, code: int = CANNOT_SERVE, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        """The exit code of the command that asked."""
        self.problems = list(problems)


class Successor:
    """One new process, whatever its version."""

    def __init__(self, channel: Channel, threads: Threads) -> None:
        self.channel = channel
        self._threads = threads
        self._started: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self.pid = 0
        self.version = ""

    @classmethod
    def start(cls, environ: Mapping[str, str]) -> Successor:
        """Start one and wait until it says who it is. Blocks. Raises UpgradeFailed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        successor = cls(Channel(ours), Threads(1))
        try:
            with theirs:
                successor._launch(launch.environment(environ, theirs.fileno()), theirs.fileno())
            successor._greet()
        except BaseException:
            successor.kill()
            raise
        return successor

    def _launch(self, environ: Mapping[str, str], channel: int) -> None:
        command = launch.command()

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, pass_fds=[channel])

        try:
            self._started = self._threads.call(start)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise UpgradeFailed(f"{command[0]} cannot be run: {why}; is the new version installed?") from error

    def _greet(self) -> None:
        """What was started forks and ends; the process that stays says hello."""
        try:
            hello = self.expect("hello", HELLO_TIMEOUT_S)
        except UpgradeFailed as error:
            code = self._code()
            if code:
                raise UpgradeFailed(f"the new process failed with exit code {code}; its log says why") from error
            raise
        self._code()
        self.pid, self.version = int(hello["pid"]), str(hello["version"])
        with suppress(OSError):  # it has ended since, as the next message will show
            self._pidfd = os.pidfd_open(self.pid)

    def _code(self) -> int | None:
        """Of what was started, once it has ended. Blocks for a moment."""
        assert self._started is not None
        with suppress(subprocess.TimeoutExpired):
            return self._threads.call(self._started.wait, END_TIMEOUT_S)
        return None

    def send(self, what: str, sockets: Sequence[socket.socket] = (), **more: object) -> None:
        """Blocks. Raises UpgradeFailed."""
        try:
            self.channel.send({"is": what, **more}, sockets)
        except ChannelClosed as error:
            raise UpgradeFailed("the new process has ended; its log says why") from error

    def expect(self, what: str, timeout_s: float) -> Message:
        """The next message, which is ``what``. Blocks. Raises UpgradeFailed."""
        try:
            message, _ = self.channel.receive(timeout_s)
        except ChannelClosed as error:
            raise UpgradeFailed("the new process has ended; its log says why") from error
        except TimeoutError as error:
            raise UpgradeFailed(f'the new process did not say "{what}" within {timeout_s:g} s') from error
        if message.get("is") == "failed":
            raise UpgradeFailed(str(message["error"]), int(message["code"]), list(map(str, message["problems"])))
        if message.get("is") != what:
            raise UpgradeFailed(f'the new process said "{message.get("is")}" instead of "{what}"; is it pomagent?')
        return message

    def signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            with suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """It is of no use. Blocks for a moment."""
        self.signal(signal.SIGKILL)
        self.channel.close()
        self.let_be()
        if self._started is not None and self._started.returncode is None:
            self._started.kill()
            self._code()

    def let_be(self) -> None:
        """It needs nothing more of us than the channel."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
