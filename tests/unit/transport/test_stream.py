"""What a socket stream waits for: a descriptor that is ready, and for how long."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import TypeAlias

import pytest

from pomagent.transport.stream import SocketStream

A_WHILE_S = 0.05

Ends: TypeAlias = tuple[SocketStream, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    stream = SocketStream(ours)
    with theirs:
        yield stream, theirs
    stream.close()


def test_ready_descriptor_counts_although_the_hub_was_late(ends: Ends) -> None:
    stream, theirs = ends
    stream.wait_readable(0.001)
    time.sleep(2 * A_WHILE_S)  # the loop's clock stands still meanwhile
    theirs.send(b"x")
    assert stream.wait_readable(A_WHILE_S)
    assert stream.wait_writable(A_WHILE_S)


def test_ready_descriptor_counts_although_no_time_is_left(ends: Ends) -> None:
    stream, theirs = ends
    theirs.send(b"x")
    assert stream.wait_readable(0)
    assert stream.wait_readable(-1)
    assert stream.wait_writable(0)


def test_wait_for_nothing_does_not_end_before_its_timeout(ends: Ends) -> None:
    stream, _ = ends
    stream.wait_readable(0.001)
    time.sleep(A_WHILE_S)
    began = time.monotonic()
    assert not stream.wait_readable(2 * A_WHILE_S)
    assert time.monotonic() - began > A_WHILE_S
