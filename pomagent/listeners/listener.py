"""One bound local socket, which accepts until it is closed, whatever happens to descriptors and routes meanwhile."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

import gevent
from gevent import get_hub
from gevent.event import Event
from gevent.socket import wait

from pomagent.listeners.bind import bind, bound_address, explain, file_of, how_lost, set_permissions
from pomagent.listeners.inherited import Inherited, store_name
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.settings import ListenAddress, ListenKey, UnixAddress
from pomagent.transport import tcp

PAUSE_FIRST_S, PAUSE_MAX_S = 0.005, 1.0
"""Pause after an accept that failed for lack of descriptors or memory: the listener neither spins nor gives up."""

Accept = Callable[[socket.socket, str], None]
"""Takes over an accepted connection and the peer's name. It must not block."""


class Listener:
    """One listening socket. The receiver of its connections may change while it listens."""

    def __init__(
        self, address: ListenAddress, log: Logger, may_overlap: Sequence[socket.socket] = (),
        inherited: Inherited | None = None, accepting: Event | None = None,
    ) -> None:  # fmt: skip
        """Listen on the inherited socket, or bind one. Raises BindError.

        ``may_overlap`` are our own sockets that will close and may overlap with the address. The listener accepts while
        ``accepting`` is set, or always if there is none.
        """
        self.requested = address
        self.inherited = inherited
        """The socket as it was inherited, or None if it was bound here."""
        self._log = log
        self.sock: socket.socket = inherited.sock if inherited else bind(address, may_overlap)
        if isinstance(address, UnixAddress) and inherited and not self.is_from_unit:
            set_permissions(address)  # the settings may have changed since. A unit has its own SocketMode=
        self.sock.setblocking(False)
        tcp.prepare(self.sock)  # accepted sockets inherit the options
        self._reader = get_hub().loop.io(self.sock.fileno(), 1)
        self._accepting = accepting
        self._wakeups = 0
        self._wakeups_when_clients_waited = -1
        self._accept: Accept | None = None
        self._greenlet: gevent.Greenlet | None = None
        self._file = file_of(address)
        self.address: ListenAddress = bound_address(self.sock, address)
        """The listen address, with the port that the kernel chose if port 0 was requested."""

    def __repr__(self) -> str:
        return f"<Listener {self.address}>"

    @property
    def inode(self) -> int:
        """Inode of the socket: an equal number means the same socket."""
        return os.fstat(self.sock.fileno()).st_ino

    @property
    def is_from_unit(self) -> bool:
        """Whether a systemd ``.socket`` unit listens there as well, so that the address is not ours to give up."""
        return self.inherited is not None and self.inherited.is_from_unit

    @property
    def lost_file(self) -> str:
        """How the file of a Unix socket was lost, so that no client reaches this listener. Empty if it is there."""
        if not isinstance(self.requested, UnixAddress):
            return ""
        return how_lost(self.requested, self._file)

    @property
    def accept(self) -> Accept | None:
        """The receiver of its connections."""
        return self._accept

    def inheritable(self, key: ListenKey) -> Inherited:
        """Return the socket under the name by which another process of this service finds it."""
        name = self.inherited.name if self.inherited and self.is_from_unit else store_name(key)
        return Inherited(self.sock, name)

    def deliver_to(self, route: str, accept: Accept) -> None:
        """Pass connections to ``accept`` from now on. The first call starts accepting. ``route`` may be empty."""
        self._accept = accept
        if route:
            self._log = self._log.bind(route=route)
        if self._greenlet is None:
            self._greenlet = gevent.Greenlet(self._run)
            self._greenlet.name = f"listener {self.address}"
            self._greenlet.start()
            self._log.info(events.LISTENER_BOUND, listen=str(self.address))

    def is_stuck(self, *, has_waiting: bool) -> bool:
        """Return whether a client waits, one waited at the last call, and the greenlet has not woken in between."""
        if self._greenlet is None:
            return False
        seen, self._wakeups_when_clients_waited = (
            self._wakeups_when_clients_waited,
            self._wakeups if has_waiting else -1,
        )
        return self._greenlet.ready() or (has_waiting and seen == self._wakeups)

    def set_permissions(self, address: UnixAddress) -> None:
        """Apply the permissions of another address with the same path. Raises BindError."""
        if not self.is_from_unit:
            set_permissions(address)
        self.requested = self.address = address

    def close(self) -> None:
        """Give up the address. Clients that have connected already are still served. A second call does nothing."""
        if self._stop_accepting() and not self.is_from_unit:
            self._remove_file()
            self.end(self.sock)
        self.sock.close()

    def stop(self, *, keep_socket: bool, serve_waiting: bool = True) -> None:
        """Stop listening as this process exits. With ``keep_socket`` another process may go on with the socket.

        ``serve_waiting`` accepts clients that have connected already. Only an upgrade, where the other process surely
        accepts, does without.
        """
        if self._stop_accepting(serve_waiting=serve_waiting) and not (keep_socket or self.is_from_unit):
            self._remove_file()
        self.sock.close()

    @staticmethod
    def end(sock: socket.socket) -> None:
        """Close a listening socket in every process that has it, so that systemd's store does not keep its port."""
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    def _stop_accepting(self, *, serve_waiting: bool = True) -> bool:
        """Stop accepting. Return False if that has happened before."""
        if self.sock.fileno() < 0:
            return False
        if self._greenlet is not None:
            self._greenlet.kill()
            with suppress(OSError):
                while serve_waiting and self._accept_one():
                    pass
            self._log.info(events.LISTENER_CLOSED, listen=str(self.address))
        self._reader.stop()
        self._reader.close()
        return True

    def _remove_file(self) -> None:
        if isinstance(self.requested, UnixAddress) and file_of(self.requested) == self._file:  # else another program's
            with suppress(OSError):  # such as a directory that is no longer writable: not worth a failure
                self.requested.path.unlink()

    def _run(self) -> None:
        pause_s = PAUSE_FIRST_S
        while True:
            wait(self._reader)
            if self._accepting is not None and not self._accepting.is_set():
                self._accepting.wait()
                continue  # another process may have accepted the connection meanwhile
            self._wakeups += 1
            try:
                # One connection per turn of the loop, so that its session begins before the next one is accepted.
                self._accept_one()
                pause_s = PAUSE_FIRST_S
                continue
            except OSError as error:
                self._log.warning(
                    events.LISTENER_ACCEPT_FAILED, listen=str(self.address), error=explain(error),
                    retry_in_ms=round(pause_s * 1000),
                )  # fmt: skip
            except Exception:  # noqa: BLE001 - a bug in taking over a connection costs that one, not all that follow
                get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())
            gevent.sleep(pause_s)
            pause_s = min(PAUSE_MAX_S, pause_s * 2)

    def _accept_one(self) -> bool:
        """Accept a waiting connection, or return False if there is none. Raises OSError."""
        try:
            sock, peer = self.sock.accept()
        except BlockingIOError:
            return False
        except ConnectionAbortedError:
            return True  # the client left before it was accepted
        assert self._accept is not None
        self._accept(sock, _peer_name(peer))
        return True


def _peer_name(peer: object) -> str:
    if isinstance(peer, tuple):
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unix"
