"""Turns local addresses into listening sockets: permissions, leftover files, overlaps, and errors with a remedy."""

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
"""Maximum connections that wait to be accepted, such as during a restart. The kernel cuts it to net.core.somaxconn."""


def bind(address: ListenAddress, may_overlap: Sequence[socket.socket] = ()) -> socket.socket:
    """Return a socket that listens on ``address``. ``may_overlap`` are sockets of this process. Raises BindError."""
    try:
        return _bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or isinstance(address, UnixAddress) or not may_overlap:
            raise _failure(address, error) from error
    try:
        return _bind_beside(address, may_overlap)
    except OSError as error:
        raise _failure(address, error) from error


def _bind_beside(address: HostPort, others: Sequence[socket.socket]) -> socket.socket:
    """Bind an address that overlaps with our own, such as 0.0.0.0 with 127.0.0.1, without refusing any client.

    SO_REUSEPORT on both sides allows the overlap for sockets of one user. The option is cleared at once, because it
    would also let other programs of that user share the port.
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
    # No client may connect before the permissions are set. A umask would apply to all threads.
    os.fchmod(sock.fileno(), 0)
    sock.bind(str(address.path))
    try:
        set_permissions(address)
    except BindError:
        address.path.unlink()
        raise


def set_permissions(address: UnixAddress) -> None:
    """Set the owner, group and mode of the socket's file. Raises BindError."""
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
    """Return the device and inode of the file at a Unix socket's path, or None for TCP and where there is no file."""
    if not isinstance(address, UnixAddress):
        return None
    try:
        status = address.path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def how_lost(address: UnixAddress, bound: tuple[int, int] | None) -> str:
    """Return how the file of a socket that was bound to ``address`` was lost, or an empty string if it is there."""
    found = file_of(address)
    if found is None:
        return "its file was removed"
    return "its file was replaced" if bound is not None and found != bound else ""


def _remove_leftover(address: UnixAddress) -> None:
    """Remove the socket file of a process that has ended. Keep a file that is in use or is no socket."""
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


def bound_address(sock: socket.socket, requested: ListenAddress) -> ListenAddress:
    """Return the requested address, with the port that the kernel chose if port 0 was requested."""
    if isinstance(requested, UnixAddress):
        return requested
    return HostPort(requested.host, sock.getsockname()[1])


def _failure(address: ListenAddress, error: OSError) -> BindError:
    is_taken = error.errno == errno.EADDRINUSE
    return BindError(address, explain(error), "stop what listens there, or choose another address" if is_taken else "")


def explain(error: OSError) -> str:
    """Describe a failed bind or accept, with its remedy where there is one."""
    cause = (error.strerror or str(error)).lower()
    if error.errno == errno.EACCES:
        return f"{cause}; ports below 1024 need CAP_NET_BIND_SERVICE, Unix sockets need a writable directory"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{cause}; raise LimitNOFILE of the service"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{cause}; no interface of this host has this address now"
    if error.errno == errno.ENOENT:
        return f"{cause}; create its directory first"
    return cause
