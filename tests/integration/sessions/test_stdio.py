"""Standard input and output of every kind as a session's client."""

import os
import pty
import socket
import termios
import tty
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import gevent
import pytest

from pomagent.errors import StreamLost
from pomagent.runtime.greenlets import GreenletReuse
from pomagent.sessions.ends import CLIENT_ABORTED, CLIENT_FINISHED, GATEWAY_FINISHED, End
from pomagent.sessions.half_close import HalfClosePolicy
from pomagent.sessions.relay import Relay
from pomagent.sessions.stdio import ATOMIC_BYTES, StdioClient
from tests.fakes.greenlets import settle
from tests.fakes.relays import FakeRelayContext
from tests.fakes.streams import FakeStream, stream_pair
from tests.gateway.destinations import pseudo_random
from tests.gateway.waiting import wait_until

MIB = 1024 * 1024


class Pipes:
    """A client on two descriptors, and the test's ends of them."""

    def __init__(self, source: int, sink: int, to_source: int, from_sink: int) -> None:
        self.client = StdioClient(source, sink)
        self.to_source, self.from_sink = to_source, from_sink
        self._owned = {source, sink, to_source, from_sink}

    def close_end(self, descriptor: int) -> None:
        self._owned.discard(descriptor)
        os.close(descriptor)

    def close(self) -> None:
        self.client.close()
        for descriptor in self._owned:
            os.close(descriptor)


def pipe_pair() -> Pipes:
    source, to_source = os.pipe()
    from_sink, sink = os.pipe()
    return Pipes(source, sink, to_source, from_sink)


def socket_pair() -> Pipes:
    ours, theirs = socket.socketpair()
    return Pipes(os.dup(ours.fileno()), ours.detach(), os.dup(theirs.fileno()), theirs.detach())


def terminal() -> Pipes:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    return Pipes(os.dup(theirs), theirs, os.dup(ours), ours)


KINDS = {"pipe": pipe_pair, "socket": socket_pair, "terminal": terminal}


@pytest.fixture(params=KINDS)
def pipes(request: pytest.FixtureRequest) -> Iterator[Pipes]:
    made = KINDS[request.param]()
    yield made
    made.close()


@pytest.fixture
def pipe() -> Iterator[Pipes]:
    made = pipe_pair()
    yield made
    made.close()


def received(client: StdioClient, length: int = 65536) -> bytes | None:
    buffer = bytearray(length)
    count = client.recv_into(memoryview(buffer))
    return None if count is None else bytes(buffer[:count])


def read_all(descriptor: int, length: int) -> bytes:
    """Read ``length`` bytes from a descriptor without blocking other greenlets."""
    os.set_blocking(descriptor, False)
    data = b""
    while len(data) < length:
        try:
            more = os.read(descriptor, length - len(data))
        except BlockingIOError:
            gevent.sleep(0.001)
        else:
            assert more, f"the end after {len(data)} bytes"
            data += more
    return data


def relayed(client: StdioClient, linger_s: float = 2.0) -> tuple[gevent.Greenlet, FakeStream]:
    """Return a running relay's greenlet, and the gateway's end of its tunnel."""
    tunnel, gateway = stream_pair(MIB)
    greenlets = GreenletReuse()
    relay = Relay(
        client, tunnel, HalfClosePolicy("auto", linger_s, can_carry=False), FakeRelayContext(greenlets=greenlets)
    )
    greenlet = gevent.Greenlet(relay.run, b"")
    greenlet.link(lambda _: gevent.spawn(greenlets.close))
    greenlet.start()
    return greenlet, gateway


def ended(greenlet: gevent.Greenlet) -> End:
    end = greenlet.get(timeout=10)
    assert isinstance(end, End)
    return end


class TestEveryKind:
    def test_read_without_input_returns_none(self, pipes: Pipes) -> None:
        assert received(pipes.client) is None

    def test_input_is_read(self, pipes: Pipes) -> None:
        os.write(pipes.to_source, b"hello")
        assert pipes.client.wait_readable(5)
        assert received(pipes.client) == b"hello"

    def test_sent_bytes_reach_the_sink(self, pipes: Pipes) -> None:
        assert pipes.client.send(b"hello") == 5
        assert os.read(pipes.from_sink, 100) == b"hello"

    def test_reader_that_pauses_never_blocks_the_hub_and_loses_nothing(self, pipes: Pipes) -> None:
        body = b"".join(pseudo_random(1, MIB)).replace(b"\x04", b"")
        sent = 0
        while taken := pipes.client.send(memoryview(body)[sent:]):
            sent += taken
        assert 0 < sent < len(body)

        def send_the_rest() -> None:
            view = memoryview(body)[sent:]
            while view:
                pipes.client.wait_writable()
                view = view[pipes.client.send(view) :]

        sending = gevent.Greenlet.spawn(send_the_rest)
        assert read_all(pipes.from_sink, len(body)) == body
        sending.get(timeout=5)

    def test_flags_of_the_descriptors_stay_unchanged(self, pipes: Pipes) -> None:
        pipes.client.send(b"x")
        assert os.get_blocking(pipes.client._source)

    def test_sink_without_a_reader_is_lost(self, pipes: Pipes) -> None:
        assert not pipes.client.is_lost()
        pipes.close_end(pipes.from_sink)
        if pipes.to_source in pipes._owned:
            pipes.close_end(pipes.to_source)  # the same end for a terminal or a socket
        assert pipes.client.is_lost()
        assert pipes.client.has_closed()
        with pytest.raises(StreamLost):
            pipes.client.send(b"x" * ATOMIC_BYTES)

    def test_close_leaves_the_descriptors_open_for_the_process(self, pipes: Pipes) -> None:
        source, sink = pipes.client._source, pipes.client._sink
        pipes.client.close()
        pipes.client.close()
        pipes.client.abort()
        assert os.fstat(source)
        assert sink == pipes.client._reopened or os.fstat(sink)


class TestTerminal:
    def test_unread_terminal_in_cooked_mode_never_blocks_the_hub(self) -> None:
        """Ctrl-S, or a slow terminal: a line feed becomes two characters, while poll(2) guarantees room for one."""
        for fill in (0, 100, 1000, 1500):
            ours, theirs = pty.openpty()
            settings = termios.tcgetattr(theirs)
            settings[3] &= ~termios.ECHO
            termios.tcsetattr(theirs, termios.TCSANOW, settings)
            pipes = Pipes(os.dup(theirs), theirs, os.dup(ours), ours)
            pipes.client.send(b"y" * fill)
            total = 0
            while sent := pipes.client.send((b"x" * 1000 + b"\n") * 100):
                total += sent
            assert total > 0
            pipes.close()

    def test_terminal_stays_blocking_for_programs_that_share_it(self) -> None:
        pipes = terminal()
        pipes.client.send(b"x")
        assert all(os.get_blocking(descriptor) for descriptor in pipes._owned)
        pipes.close()


class TestFiles:
    def test_files_are_read_and_written(self, tmp_path: Path) -> None:
        body = b"".join(pseudo_random(2, 300_000))
        (tmp_path / "in").write_bytes(body)
        with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as sink:
            client = StdioClient(source.fileno(), sink.fileno())
            relaying, gateway = relayed(client)
            assert gateway.read(len(body)) == body
            gateway.write(b"answer")
            gateway.send_eof()
            assert ended(relaying) == GATEWAY_FINISHED
            client.close()
        assert (tmp_path / "out").read_bytes() == b"answer"

    def test_endless_file_is_not_read_after_the_session(self) -> None:
        with Path("/dev/zero").open("rb") as source, Path("/dev/null").open("wb") as sink:
            client = StdioClient(source.fileno(), sink.fileno())
            client.send_eof()
            assert received(client) == b""
            client.close()


class TestEndOfStandardInput:
    def test_session_lingers_for_the_answer_and_ends_after_its_last_byte(self, pipe: Pipes) -> None:
        relaying, gateway = relayed(pipe.client, linger_s=0.3)
        os.write(pipe.to_source, b"question")
        pipe.close_end(pipe.to_source)
        assert gateway.read(8) == b"question"
        for _ in range(4):
            gevent.sleep(0.15)
            gateway.write(b"answer")
        assert ended(relaying) == CLIENT_FINISHED
        assert read_all(pipe.from_sink, 24) == b"answer" * 4

    def test_session_with_an_unread_sink_ends_at_once(self, pipe: Pipes) -> None:
        relaying, _ = relayed(pipe.client, linger_s=60)
        settle()
        pipe.close_end(pipe.from_sink)
        pipe.close_end(pipe.to_source)
        assert ended(relaying) == CLIENT_FINISHED

    def test_reader_that_leaves_ends_the_session_though_its_source_is_still_open(self, pipe: Pipes) -> None:
        relaying, gateway = relayed(pipe.client)
        settle()
        pipe.close_end(pipe.from_sink)
        gateway.write(b"an unread answer")
        assert ended(relaying) == CLIENT_ABORTED


def test_full_sink_makes_the_gateway_wait(pipe: Pipes) -> None:
    relaying, gateway = relayed(pipe.client)
    writing = gevent.Greenlet.spawn(gateway.write, bytes(4 * MIB))
    wait_until(lambda: len(gateway.peer.inbox) == MIB)
    settle()
    assert not writing.ready()
    with ExitStack() as stack:
        stack.callback(relaying.kill)
        stack.callback(writing.kill)
