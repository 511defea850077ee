"""A bound local socket: it accepts until it is closed, whatever happens to descriptors and routes meanwhile."""

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

from pomagent.listeners.bind import bind, bound_address, explain, file_of, set_permissions
from pomagent.listeners.inherited import Inherited, store_name
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.settings import ListenAddress, ListenKey, UnixAddress
from pomagent.transport import tcp

PAUSE_FIRST_S, PAUSE_MAX_S = 0.005, 1.0
"""After an accept that failed for want of descriptors or memory: it must neither spin nor give up."""

Accept = Callable[[socket.socket, str], None]
"""Takes over an accepted connection and the peer's name; must not block."""


class Listener:
    """One listening socket; to whom it gives its connections may change while it listens."""

    def __init__(
        self, address: ListenAddress, log: Logger, instead_of: Sequence[socket.socket] = (),
        inherited: Inherited | None = None, gate: Event | None = None,
    ) -> None:  # fmt: skip
        """Listen on the inherited socket, or bind one; ``instead_of`` are our own that will close and may overlap.

        It accepts while ``gate`` is set, always if there is none. Raises BindError.
        """
        self.asked = address
        self.inherited = inherited
        """How it came to us; None if it was bound here."""
        self._log = log
        self.sock: socket.socket = inherited.sock if inherited else bind(address, instead_of)
        if isinstance(address, UnixAddress) and inherited and not self.is_units:
            set_permissions(address)  # the file may say others by now; a unit's has its own SocketMode=
        self.sock.setblocking(False)
        tcp.prepare(self.sock)  # for all that it will accept
        self._reader = get_hub().loop.io(self.sock.fileno(), 1)
        self._gate = gate
        self._turns = 0
        self._turns_when_somebody_waited = -1
        self._accept: Accept | None = None
        self._greenlet: gevent.Greenlet | None = None
        self._file = file_of(address)
        self.address: ListenAddress = bound_address(self.sock, address)
        """Where it listens: with the port that the kernel chose where 0 was asked for."""

    def __repr__(self) -> str:
        return f"<Listener {self.address}>"

    @property
    def inode(self) -> int:
        """Of the socket: the same number means that it is the same socket."""
        return os.fstat(self.sock.fileno()).st_ino

    @property
    def is_units(self) -> bool:
        """Whether a ``.socket`` unit of systemd's listens there as well: then the address is not ours to give up."""
        return self.inherited is not None and self.inherited.is_units

    def shared(self, key: ListenKey) -> Inherited:
        """The socket under the name by which another process of this service finds it."""
        return Inherited(self.sock, self.inherited.name if self.inherited and self.is_units else store_name(key))

    def give_to(self, route: str, accept: Accept) -> None:
        """From now on hand connections to ``accept``, on behalf of that route, if any; the first starts to accept."""
        self._accept = accept
        if route:
            self._log = self._log.bind(route=route)
        if self._greenlet is None:
            self._greenlet = gevent.Greenlet(self._run)
            self._greenlet.name = f"listener {self.address}"
            self._greenlet.start()
            self._log.info(events.LISTENER_BOUND, listen=str(self.address))

    def is_stuck(self, *, somebody_waits: bool) -> bool:
        """Whether it does not accept: somebody waits, as at the last question, and it has not turned in between."""
        if self._greenlet is None:
            return False
        seen, self._turns_when_somebody_waited = (
            self._turns_when_somebody_waited,
            self._turns if somebody_waits else -1,
        )
        return self._greenlet.ready() or (somebody_waits and seen == self._turns)

    def permit(self, address: UnixAddress) -> None:
        """Take over the permissions of another address with the same path. Raises BindError."""
        if not self.is_units:
            set_permissions(address)
        self.asked = self.address = address

    def close(self) -> None:
        """Give up the address; who has connected already is still served. Does nothing the second time."""
        if self._leave() and not self.is_units:
            self._remove_file()
            self.end(self.sock)
        self.sock.close()

    def leave(self, *, to_next: bool, serve_waiting: bool = True) -> None:
        """Stop listening at the end of this process; ``to_next``: another one may go on with the socket.

        Who has connected already is served here, unless that other process accepts: nobody knows if it ever comes.
        """
        if self._leave(serve_waiting=serve_waiting) and not (to_next or self.is_units):
            self._remove_file()
        self.sock.close()

    @staticmethod
    def end(sock: socket.socket) -> None:
        """Close a listening socket for all who hold it: systemd's store must not keep a port alive for nobody."""
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    def _leave(self, *, serve_waiting: bool = True) -> bool:
        """Accept no more; False if that was done before."""
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
        if isinstance(self.asked, UnixAddress) and file_of(self.asked) == self._file:  # else somebody else's by now
            with suppress(OSError):  # a directory that may not be written to any more: it is not worth a failure
                self.asked.path.unlink()

    def _run(self) -> None:
        pause_s = PAUSE_FIRST_S
        while True:
            wait(self._reader)
            if self._gate is not None and not self._gate.is_set():
                self._gate.wait()
                continue  # whoever was there may have been accepted by another process
            self._turns += 1
            try:
                self._accept_one()  # of many, the next one in the next turn of the loop: it begins after this one has
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
        """Accept a connection if one is there; False if not. Raises OSError."""
        try:
            sock, peer = self.sock.accept()
        except BlockingIOError:
            return False
        except ConnectionAbortedError:
            return True  # the client left before we got to it
        assert self._accept is not None
        self._accept(sock, _peer_name(peer))
        return True


def _peer_name(peer: object) -> str:
    if isinstance(peer, tuple):
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unix"
