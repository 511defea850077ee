"""A stream that has read much without a pause is woken for many bytes at once, not for each piece."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from pomagent.errors import StreamLost
from pomagent.transport.read_coalescing import LARGE_READ_BYTES, MIN_BULK_BYTES, WAKE_BYTES
from pomagent.transport.stream import SCRATCH_BYTES, SocketStream
from pomagent.transport.tcp import reset_on_close

BUFFER = memoryview(bytearray(WAKE_BYTES))

Ends: TypeAlias = tuple[SocketStream, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        stream = SocketStream(server.accept()[0])
    with theirs:
        yield stream, theirs
    stream.close()


def reset(theirs: socket.socket) -> None:
    reset_on_close(theirs)
    theirs.close()


def run(stream: SocketStream, theirs: socket.socket) -> None:
    """Transfer as much as counts as bulk."""
    for _ in range(2 + MIN_BULK_BYTES // (WAKE_BYTES - LARGE_READ_BYTES)):
        pass_on(stream, theirs, WAKE_BYTES)


def pass_on(stream: SocketStream, theirs: socket.socket, count: int) -> None:
    theirs.sendall(bytes(count))
    read(stream, count)


def read(stream: SocketStream, count: int) -> None:
    while count > 0:
        stream.wait_readable()
        count -= stream.recv_into(BUFFER) or 0


def wakes_for(stream: SocketStream) -> int:
    return stream.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


def test_one_read_takes_all_bytes_that_woke_it() -> None:
    assert SCRATCH_BYTES >= WAKE_BYTES


def test_stream_with_small_reads_is_woken_for_one_byte_however_many_they_are(ends: Ends) -> None:
    stream, theirs = ends
    for _ in range(2 * MIN_BULK_BYTES // 4096):
        pass_on(stream, theirs, 4096)
    assert wakes_for(stream) == 1
    assert stream._coalescing is None, "no memory for a stream without a large read"


def test_small_reads_count_against_a_bulk_transfer(ends: Ends) -> None:
    stream, theirs = ends
    run(stream, theirs)
    for _ in range(2 * MIN_BULK_BYTES // LARGE_READ_BYTES):
        theirs.send(b"x")
        assert stream.wait_readable(60)
        stream.recv_into(BUFFER)
    pass_on(stream, theirs, WAKE_BYTES)
    assert wakes_for(stream) == 1


def test_bulk_transfer_is_woken_for_many_bytes(ends: Ends) -> None:
    stream, theirs = ends
    run(stream, theirs)
    pass_on(stream, theirs, WAKE_BYTES)
    assert wakes_for(stream) == WAKE_BYTES


def test_last_bytes_of_a_bulk_transfer_do_not_wait_for_more(ends: Ends) -> None:
    stream, theirs = ends
    run(stream, theirs)
    theirs.send(b"x")
    stream.wait_readable()
    assert stream.recv_into(BUFFER) == 1


@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_end_of_a_bulk_transfer_does_not_wait_for_more(ends: Ends, end: Callable[[socket.socket], None]) -> None:
    stream, theirs = ends
    run(stream, theirs)
    end(theirs)
    with contextlib.suppress(StreamLost):
        stream.wait_readable()
        assert stream.recv_into(BUFFER) == 0


def test_one_byte_wakes_again_after_a_bulk_transfer(ends: Ends) -> None:
    stream, theirs = ends
    run(stream, theirs)
    stream.wait_readable()  # times out: the transfer is over
    theirs.send(b"x")
    stream.wait_readable()
    assert wakes_for(stream) == 1


def test_wait_with_a_timeout_is_woken_for_one_byte(ends: Ends) -> None:
    stream, theirs = ends
    run(stream, theirs)
    pass_on(stream, theirs, WAKE_BYTES)
    theirs.send(b"x")
    assert stream.wait_readable(60)
    assert wakes_for(stream) == 1


def test_sender_that_pauses_after_each_block_must_send_twice_as_much_to_count_as_bulk_again(ends: Ends) -> None:
    stream, theirs = ends
    run(stream, theirs)
    stream.wait_readable()  # nothing came
    run(stream, theirs)
    pass_on(stream, theirs, WAKE_BYTES)
    assert wakes_for(stream) == 1
    run(stream, theirs)
    pass_on(stream, theirs, WAKE_BYTES)
    assert wakes_for(stream) == WAKE_BYTES


def test_reset_behind_the_last_bytes_is_still_noticed_over_a_unix_socket() -> None:
    ours, theirs = socket.socketpair()
    stream = SocketStream(ours)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * WAKE_BYTES)
    run(stream, theirs)
    stream.send(b"never read")
    theirs.sendall(bytes(1000))
    theirs.close()
    read(stream, 1000)
    with pytest.raises(StreamLost):
        stream.recv_into(BUFFER)
    stream.close()
