"""What may be waited for: a descriptor that is ready, and for how long."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from pomagent.errors import StreamLost
from pomagent.transport.stream import PLENTY_BYTES, RUN_BYTES, SocketStream
from pomagent.transport.tcp import reset_on_close

A_WHILE_S = 0.05
BUFFER = memoryview(bytearray(PLENTY_BYTES))

Ends: TypeAlias = tuple[SocketStream, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    stream = SocketStream(ours)
    with theirs:
        yield stream, theirs
    stream.close()


@pytest.fixture
def tcp_ends() -> Iterator[Ends]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        stream = SocketStream(server.accept()[0])
    with theirs:
        yield stream, theirs
    stream.close()


def reset(theirs: socket.socket) -> None:
    reset_on_close(theirs)
    theirs.close()


def test_what_is_ready_counts_although_the_hub_was_late(ends: Ends) -> None:
    stream, theirs = ends
    stream.wait_readable(0.001)
    time.sleep(2 * A_WHILE_S)  # the loop's clock stands still meanwhile
    theirs.send(b"x")
    assert stream.wait_readable(A_WHILE_S)
    assert stream.wait_writable(A_WHILE_S)


def test_what_is_ready_counts_although_there_is_no_time_left(ends: Ends) -> None:
    stream, theirs = ends
    theirs.send(b"x")
    assert stream.wait_readable(0)
    assert stream.wait_readable(-1)
    assert stream.wait_writable(0)


def test_a_wait_for_nothing_ends_and_not_before_its_time(ends: Ends) -> None:
    stream, _ = ends
    stream.wait_readable(0.001)
    time.sleep(A_WHILE_S)
    began = time.monotonic()
    assert not stream.wait_readable(2 * A_WHILE_S)
    assert time.monotonic() - began > A_WHILE_S


class TestBulk:
    """Who has read much without a pause is woken for plenty, not for each piece."""

    def test_small_reads_are_woken_for_one_byte_however_many_they_are(self, tcp_ends: Ends) -> None:
        stream, theirs = tcp_ends
        for _ in range(2 * RUN_BYTES // 4096):
            pass_on(stream, theirs, 4096)
        assert wakes_for(stream) == 1

    def test_a_transfer_is_woken_for_plenty(self, tcp_ends: Ends) -> None:
        stream, theirs = tcp_ends
        run(stream, theirs)
        pass_on(stream, theirs, PLENTY_BYTES)
        assert wakes_for(stream) == PLENTY_BYTES

    def test_its_last_bytes_do_not_wait_for_more(self, tcp_ends: Ends) -> None:
        stream, theirs = tcp_ends
        run(stream, theirs)
        theirs.send(b"x")
        read(stream, 1)

    @pytest.mark.parametrize("end", [socket.socket.close, reset])
    def test_nor_does_its_end(self, tcp_ends: Ends, end: Callable[[socket.socket], None]) -> None:
        stream, theirs = tcp_ends
        run(stream, theirs)
        end(theirs)
        with contextlib.suppress(StreamLost):
            stream.wait_readable()
            assert stream.recv_into(BUFFER) == 0

    def test_after_it_one_byte_wakes_again(self, tcp_ends: Ends) -> None:
        stream, theirs = tcp_ends
        run(stream, theirs)
        stream.wait_readable()  # for nothing: the transfer is over
        theirs.send(b"x")
        stream.wait_readable()
        assert wakes_for(stream) == 1

    def test_a_wait_with_a_limit_is_woken_for_one_byte(self, tcp_ends: Ends) -> None:
        stream, theirs = tcp_ends
        run(stream, theirs)
        pass_on(stream, theirs, PLENTY_BYTES)
        theirs.send(b"x")
        assert stream.wait_readable(60)
        assert wakes_for(stream) == 1

    def test_who_sends_block_by_block_pays_ever_less_often(self, tcp_ends: Ends) -> None:
        stream, theirs = tcp_ends
        run(stream, theirs)
        stream.wait_readable()  # nothing came
        run(stream, theirs)
        pass_on(stream, theirs, PLENTY_BYTES)
        assert wakes_for(stream) == 1
        run(stream, theirs)
        pass_on(stream, theirs, PLENTY_BYTES)
        assert wakes_for(stream) == PLENTY_BYTES

    def test_over_a_unix_socket_a_reset_behind_the_last_bytes_is_still_seen(self, ends: Ends) -> None:
        stream, theirs = ends
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * PLENTY_BYTES)
        run(stream, theirs)
        stream.send(b"never read")
        theirs.sendall(bytes(1000))
        theirs.close()
        read(stream, 1000)
        with pytest.raises(StreamLost):
            stream.recv_into(BUFFER)


def run(stream: SocketStream, theirs: socket.socket) -> None:
    """As much as makes a transfer of it."""
    for _ in range(2 + RUN_BYTES // (PLENTY_BYTES - 16 * 1024)):
        pass_on(stream, theirs, PLENTY_BYTES)


def pass_on(stream: SocketStream, theirs: socket.socket, count: int) -> None:
    theirs.sendall(bytes(count))
    read(stream, count)


def read(stream: SocketStream, count: int) -> None:
    while count > 0:
        stream.wait_readable()
        count -= stream.recv_into(BUFFER) or 0


def wakes_for(stream: SocketStream) -> int:
    return stream.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)
