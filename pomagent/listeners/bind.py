"""Local addresses to listening sockets: permissions, leftovers, overlaps, and what to say when it fails."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Sequence

from pomagent.errors import BindError
from pomagent.settings import HostPort, ListenAddress, UnixAddress

BACKLOG = 4096
"""Who connects during a restart waits there; the kernel cuts it to net.core.somaxconn."""


def bind(address: ListenAddress, instead_of: Sequence[socket.socket] = ()) -> socket.socket:
    """A socket that listens there; ``instead_of`` are our own sockets that may overlap with it. Raises BindError."""
    try:
        return _bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or isinstance(address, UnixAddress) or not instead_of:
            raise _failure(address, error) from error
    try:
        return _bind_beside(address, instead_of)
    except OSError as error:
        raise _failure(address, error) from error


def _bind_beside(address: HostPort, others: Sequence[socket.socket]) -> socket.socket:
    """Bind an address that overlaps with some of ours, such as 0.0.0.0 with 127.0.0.1, so that nobody is refused.

    SO_REUSEPORT on both sides allows it to sockets of one user. It is taken back at once: it would let other programs
    of that user share the port, too.
    """
    same_port = [
        other
        for other in others
        if other.family in (socket.AF_INET, socket.AF_INET6) and other.getsockname()[1] == address.port
    ]
    _share(same_port, on=True)
    try:
        sock = _bind(address, share=True)
    finally:
        _share(same_port, on=False)
    _share([sock], on=False)
    return sock


def _share(sockets: Sequence[socket.socket], *, on: bool) -> None:
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, on)


def _bind(address: ListenAddress, *, share: bool = False) -> socket.socket:
    family = _family(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if isinstance(address, UnixAddress):
            _bind_unix(sock, address)
        else:
            _share([sock], on=share)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # [::] and 0.0.0.0 are two addresses
            sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_unix(sock: socket.socket, address: UnixAddress) -> None:
    _remove_leftover(address)
    os.fchmod(sock.fileno(), 0)  # nobody connects before the permissions are right; a umask would be all threads'
    sock.bind(str(address.path))
    try:
        set_permissions(address)
    except BindError:
        address.path.unlink()
        raise


def set_permissions(address: UnixAddress) -> None:
    """Give the socket's file its owner, group and mode. Raises BindError."""
    try:
        uid = pwd.getpwnam(address.user).pw_uid if address.user else -1
        gid = grp.getgrnam(address.group).gr_gid if address.group else -1
    except KeyError as error:
        raise BindError(address, f"no such user or group: {error.args[0]}") from error
    try:
        if uid != -1 or gid != -1:
            os.chown(address.path, uid, gid)
        address.path.chmod(address.mode)
    except OSError as error:
        raise _failure(address, error) from error


def file_of(address: ListenAddress) -> tuple[int, int] | None:
    """Which file stands at a Unix socket's path now (device and inode); None for TCP and where there is none."""
    if not isinstance(address, UnixAddress):
        return None
    try:
        status = address.path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


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


def bound_address(sock: socket.socket, asked: ListenAddress) -> ListenAddress:
    if isinstance(asked, UnixAddress):
        return asked
    return HostPort(asked.host, sock.getsockname()[1])


def _failure(address: ListenAddress, error: OSError) -> BindError:
    is_taken = error.errno == errno.EADDRINUSE
    return BindError(address, explain(error), "stop what listens there, or choose another address" if is_taken else "")


def explain(error: OSError) -> str:
    said = (error.strerror or str(error)).lower()
    if error.errno == errno.EACCES:
        return f"{said}; ports below 1024 need CAP_NET_BIND_SERVICE, Unix sockets a directory that may be written to"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{said}; raise LimitNOFILE of the service"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{said}; no interface of this host has it now"
    if error.errno == errno.ENOENT:
        return f"{said}; make its directory first"
    return said
