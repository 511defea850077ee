"""A bound local socket: it accepts until it is closed, whatever happens to descriptors and routes meanwhile."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable
from contextlib import suppress

import gevent
from gevent import get_hub
from gevent.socket import wait

from pomagent import events
from pomagent.errors import BindError
from pomagent.log import Logger
from pomagent.settings import HostPort, ListenAddress, UnixAddress

BACKLOG = 1024
"""Asked for; the kernel cuts it to net.core.somaxconn."""
ACCEPTS_IN_A_ROW = 32
"""Before other greenlets get their turn."""
PAUSE_FIRST_S, PAUSE_MAX_S = 0.005, 1.0
"""After an accept that failed for want of descriptors or memory: it must neither spin nor give up."""

Accept = Callable[[socket.socket, str], None]
"""Takes over an accepted connection and the peer's name; must not block."""


class Listener:
    """One listening socket; to whom it gives its connections may change while it listens."""

    def __init__(self, address: ListenAddress, log: Logger) -> None:
        """Bind and listen. Raises BindError."""
        self.asked = address
        self._log = log
        self._sock = _bind(address)
        self._sock.setblocking(False)
        self._reader = get_hub().loop.io(self._sock.fileno(), 1)
        self._accept: Accept | None = None
        self._greenlet: gevent.Greenlet | None = None
        self.address: ListenAddress = _bound_address(self._sock, address)
        """Where it listens: with the port that the kernel chose where 0 was asked for."""

    def __repr__(self) -> str:
        return f"<Listener {self.address}>"

    @property
    def inode(self) -> int:
        """Of the socket: the same number means that it is the same socket."""
        return os.fstat(self._sock.fileno()).st_ino

    def give_to(self, accept: Accept) -> None:
        """From now on hand connections to ``accept``; the first call starts to accept."""
        self._accept = accept
        if self._greenlet is None:
            self._greenlet = gevent.Greenlet(self._run)
            self._greenlet.name = f"listener {self.address}"
            self._greenlet.start()
            self._log.info(events.LISTENER_BOUND, listen=str(self.address))

    def close(self) -> None:
        """Stop listening. Does nothing the second time."""
        if self._sock.fileno() < 0:
            return
        if self._greenlet is not None:
            self._greenlet.kill()
            self._log.info(events.LISTENER_CLOSED, listen=str(self.address))
        self._reader.stop()
        self._reader.close()
        self._sock.close()
        if isinstance(self.asked, UnixAddress):
            with suppress(FileNotFoundError):
                self.asked.path.unlink()

    def _run(self) -> None:
        pause_s = PAUSE_FIRST_S
        while True:
            wait(self._reader)
            try:
                self._accept_some()
                pause_s = PAUSE_FIRST_S
            except OSError as error:
                self._log.warning(
                    events.LISTENER_ACCEPT_FAILED, listen=str(self.address), error=_explain(error),
                    retry_in_ms=round(pause_s * 1000),
                )  # fmt: skip
                gevent.sleep(pause_s)
                pause_s = min(PAUSE_MAX_S, pause_s * 2)

    def _accept_some(self) -> None:
        for _ in range(ACCEPTS_IN_A_ROW):
            try:
                sock, peer = self._sock.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue  # the client left before we got to it
            assert self._accept is not None
            self._accept(sock, _peer_name(peer))


def _bind(address: ListenAddress) -> socket.socket:
    family = _family(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if isinstance(address, UnixAddress):
            _bind_unix(sock, address)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # [::] and 0.0.0.0 are two addresses
            sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise BindError(address, _explain(error)) from error
    except (KeyError, LookupError) as error:
        sock.close()
        raise BindError(address, f"no such user or group: {error}") from error
    return sock


def _bind_unix(sock: socket.socket, address: UnixAddress) -> None:
    _remove_leftover(address)
    old = os.umask(0o777)  # nobody connects before the permissions are right
    try:
        sock.bind(str(address.path))
    finally:
        os.umask(old)
    uid = pwd.getpwnam(address.user).pw_uid if address.user else -1
    gid = grp.getgrnam(address.group).gr_gid if address.group else -1
    if uid != -1 or gid != -1:
        os.chown(address.path, uid, gid)
    address.path.chmod(address.mode)


def _remove_leftover(address: UnixAddress) -> None:
    """Remove the socket file of a process that is gone; anything that is in use or no socket stays."""
    try:
        if not stat.S_ISSOCK(address.path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        if probe.connect_ex(str(address.path)) == errno.ECONNREFUSED:
            address.path.unlink()


def _family(address: ListenAddress) -> socket.AddressFamily:
    if isinstance(address, UnixAddress):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


def _bound_address(sock: socket.socket, asked: ListenAddress) -> ListenAddress:
    if isinstance(asked, UnixAddress):
        return asked
    return HostPort(asked.host, sock.getsockname()[1])


def _peer_name(peer: object) -> str:
    if isinstance(peer, tuple):
        return str(HostPort(peer[0], peer[1]))
    return "unix"


def _explain(error: OSError) -> str:
    said = (error.strerror or str(error)).lower()
    if error.errno == errno.EADDRINUSE:
        return f"{said}; another process or route listens there"
    if error.errno == errno.EACCES:
        return f"{said}; ports below 1024 need CAP_NET_BIND_SERVICE, Unix sockets a directory that may be written to"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{said}; raise LimitNOFILE of the service"
    return said
