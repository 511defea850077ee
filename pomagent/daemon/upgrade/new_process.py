"""The new process of an upgrade as the old one sees it: started, sent messages, and killed if it cannot take over."""

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
"""Seconds for an interpreter to start and import everything."""
END_TIMEOUT_S: Final = 2.0
"""Seconds for a process that was killed, or has forked, to exit."""


class UpgradeFailed(PomagentError):
    """The new process does not take over, for the reason in the message, and this process goes on."""

    def __init__(self, message: str, code: int = CANNOT_SERVE, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        """The exit code of the ``upgrade`` command."""
        self.problems = list(problems)


class NewProcess:
    """One process that may take over, of any version."""

    def __init__(self, channel: Channel, threads: Threads) -> None:
        self.channel = channel
        self._threads = threads
        self._started: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self.pid = 0
        self.version = ""

    @classmethod
    def start(cls, environ: Mapping[str, str]) -> NewProcess:
        """Start a process and wait for its greeting. Blocks. Raises UpgradeFailed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        new = cls(Channel(ours), Threads(1))
        try:
            with theirs:
                new._launch(launch.environment(environ, theirs.fileno()), theirs.fileno())
            new._receive_hello()
        except BaseException:
            new.kill()
            raise
        return new

    def _launch(self, environ: Mapping[str, str], channel: int) -> None:
        command = launch.command()

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, pass_fds=[channel])

        try:
            self._started = self._threads.call(start)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UpgradeFailed(f"{command[0]} cannot be run: {reason}; is the new version installed?") from error

    def _receive_hello(self) -> None:
        """Wait for the hello, which the child of the started process sends: the started one forks and exits."""
        try:
            hello = self.expect("hello", HELLO_TIMEOUT_S)
        except UpgradeFailed as error:
            code = self._exit_code()
            if code:
                raise UpgradeFailed(f"the new process failed with exit code {code}; see its log") from error
            raise
        self._exit_code()
        self.pid, self.version = int(hello["pid"]), str(hello["version"])
        with suppress(OSError):  # the process has ended since, as the next message will show
            self._pidfd = os.pidfd_open(self.pid)

    def _exit_code(self) -> int | None:
        """Return the exit code of the started process, or None if it still runs. Blocks, at most END_TIMEOUT_S."""
        assert self._started is not None
        with suppress(subprocess.TimeoutExpired):
            return self._threads.call(self._started.wait, END_TIMEOUT_S)
        return None

    def send(self, kind: str, sockets: Sequence[socket.socket] = (), **more: object) -> None:
        """Send a message of this type. Blocks. Raises UpgradeFailed."""
        try:
            self.channel.send({"is": kind, **more}, sockets)
        except ChannelClosed as error:
            raise UpgradeFailed("the new process has ended; see its log") from error

    def expect(self, kind: str, timeout_s: float) -> Message:
        """Return the next message, which must be of this type. Blocks. Raises UpgradeFailed."""
        try:
            message, _ = self.channel.receive(timeout_s)
        except ChannelClosed as error:
            raise UpgradeFailed("the new process has ended; see its log") from error
        except TimeoutError as error:
            raise UpgradeFailed(f'the new process did not send "{kind}" within {timeout_s:g} s') from error
        if message.get("is") == "failed":
            raise UpgradeFailed(str(message["error"]), int(message["code"]), list(map(str, message["problems"])))
        if message.get("is") != kind:
            raise UpgradeFailed(f'is it pomagent? The new process sent "{message.get("is")}" instead of "{kind}"')
        return message

    def signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            with suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """Kill the process and close the channel. Blocks for a moment."""
        self.signal(signal.SIGKILL)
        self.channel.close()
        self.release()
        if self._started is not None and self._started.returncode is None:
            self._started.kill()
            self._exit_code()

    def release(self) -> None:
        """Close the handle of the process. The channel stays open."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
