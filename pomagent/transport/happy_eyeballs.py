"""Connects to the first of several addresses that answers (RFC 8305)."""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable

from gevent.pool import Group
from gevent.queue import Empty, Queue

from pomagent.runtime.deadline import Deadline
from pomagent.transport import tcp
from pomagent.transport.resolver import Address
from pomagent.transport.stream import SocketStream

STAGGER_S = 0.25
"""Head start of one address over the next (RFC 8305 §5)."""


def interleave(addresses: list[Address]) -> list[Address]:
    """Alternate the families, beginning with the resolver's first choice (RFC 8305 §4)."""
    if len(addresses) == 1:
        return addresses
    first = [a for a in addresses if a[0] == addresses[0][0]]
    other = [a for a in addresses if a[0] != addresses[0][0]]
    mixed: list[Address] = []
    for index in range(max(len(first), len(other))):
        mixed += first[index : index + 1] + other[index : index + 1]
    return mixed


def connect_first(
    addresses: list[Address], deadline: Deadline, on_failed: Callable[[Address], None] = lambda _: None
) -> tuple[SocketStream, Address]:
    """Return the first connection that succeeds, trying later addresses while earlier ones are silent. Blocks.

    See RFC 8305 §5. ``on_failed`` is called for each address that failed, or that stayed silent for its whole head
    start while another one answered. Raises the first OSError if all fail, TimeoutError after the deadline.
    """
    if len(addresses) == 1:
        return _connect(addresses[0], deadline), addresses[0]
    untried, failures, failed, silent = deque(addresses), list[OSError](), list[Address](), list[Address]()
    attempts, outcomes = Group(), Queue()
    try:
        while len(failures) < len(addresses) and not deadline.is_over:
            if untried:
                attempts.spawn(_race, untried.popleft(), deadline, outcomes)
            try:
                outcome, address = outcomes.get(
                    timeout=min(STAGGER_S, deadline.remaining_s) if untried else deadline.remaining_s
                )
            except Empty:
                silent = [tried for tried in addresses if tried not in untried and tried not in failed]
                continue
            if isinstance(outcome, SocketStream):
                for other in silent:
                    if other != address:
                        on_failed(other)
                return outcome, address
            failures.append(outcome)
            failed.append(address)
            on_failed(address)
        raise failures[0] if len(failures) == len(addresses) else TimeoutError()
    finally:
        attempts.kill()
        while not outcomes.empty():
            late, _ = outcomes.get_nowait()
            if isinstance(late, SocketStream):
                late.close()


def _race(address: Address, deadline: Deadline, outcomes: Queue) -> None:
    try:
        outcomes.put((_connect(address, deadline), address))
    except OSError as error:
        outcomes.put((error, address))


def _connect(address: Address, deadline: Deadline) -> SocketStream:
    family, sockaddr = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    stream = SocketStream(sock)
    try:
        tcp.prepare(sock)
        tcp.limit_silence(sock, on=True)
        _check(sock.connect_ex(sockaddr))
        _check(0 if stream.wait_writable(deadline.remaining_s) else errno.ETIMEDOUT)
        _check(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    except BaseException:
        stream.close()
        raise
    return stream


def _check(error: int) -> None:
    if error and error != errno.EINPROGRESS:
        raise OSError(error, os.strerror(error))
