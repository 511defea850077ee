"""TLS over a socket and TLS through memory against real TLS: every kind of end, without loss."""

import fcntl
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import gevent
import pytest

from pomagent.errors import StreamLost
from pomagent.gateway.dialer import Dialer
from pomagent.settings import Gateway, HostPort, Trust
from pomagent.transport.lingering_close import linger
from pomagent.transport.read_coalescing import MIN_BULK_BYTES, WAKE_BYTES
from pomagent.transport.resolver import Resolver
from pomagent.transport.stream import SCRATCH_BYTES, SocketStream
from pomagent.transport.tls_context import make_context
from pomagent.transport.tls_over_memory import TlsOverMemory
from pomagent.transport.tls_over_socket import TlsOverSocket
from pomagent.transport.tls_stream import CROSSED_PAUSE_S, TlsStream
from tests.fakes import gateway as play
from tests.fakes.gateway import HOST, Connection, FakeGateway
from tests.fakes.greenlets import settle
from tests.gateway.certificates import Authority
from tests.gateway.destinations import pseudo_random
from tests.gateway.ports import LOOPBACK, unused_port
from tests.gateway.waiting import scaled, wait_until
from tests.support.agent import processes

pytestmark = pytest.mark.usefixtures("no_leaks")

MIB = 1024 * 1024


def dialled(gateway: Gateway) -> TlsStream:
    stream = Dialer(gateway, make_context(gateway.trust), Resolver()).dial("db:1").stream
    assert isinstance(stream, TlsStream)
    return stream


def read(stream: TlsStream | SocketStream, length: int = 1 << 40, piece: int = SCRATCH_BYTES) -> bytes:
    """Read ``length`` bytes, fewer only at the orderly end. Raises StreamLost."""
    data, buffer = bytearray(), memoryview(bytearray(piece))
    while len(data) < length:
        count = stream.recv_into(buffer[: length - len(data)])
        if count == 0:
            break
        if count is None:
            assert stream.wait_readable(scaled(5)), f"nothing more after {len(data)} bytes"
        else:
            data += buffer[:count]
    return bytes(data)


def read_until_lost(stream: TlsStream) -> tuple[bytes, StreamLost]:
    data, buffer = bytearray(), memoryview(bytearray(SCRATCH_BYTES))
    while True:
        try:
            count = stream.recv_into(buffer)
        except StreamLost as loss:
            return bytes(data), loss
        assert count != 0, "an orderly end"
        if count is None:
            assert stream.wait_readable(scaled(5))
        else:
            data += buffer[:count]


@pytest.fixture(params=["over_socket", "through_memory"])
def with_stream_kind(request: pytest.FixtureRequest) -> Callable[[Gateway], Gateway]:
    """Change a gateway's settings so that a dial makes this kind of stream. No gateway here offers HTTP/2."""
    transport: Literal["http1", "http2"] = "http1" if request.param == "over_socket" else "http2"
    return lambda gateway: replace(gateway, transport=transport)


@pytest.fixture
def pair(fake: FakeGateway, with_stream_kind: Callable[[Gateway], Gateway]) -> Iterator[tuple[TlsStream, Connection]]:
    """A secured stream and the gateway's end of it."""
    fake.plays(play.secures)
    stream = dialled(with_stream_kind(fake.settings))
    yield stream, fake.tunnel()
    stream.close()


def test_both_kinds_are_tested(pair: tuple[TlsStream, Connection], request: pytest.FixtureRequest) -> None:
    kind = TlsOverSocket if "over_socket" in request.node.name else TlsOverMemory
    assert type(pair[0]) is kind


class TestReading:
    def test_read_without_input_returns_none(self, pair: tuple[TlsStream, Connection]) -> None:
        assert pair[0].recv_into(memoryview(bytearray(10))) is None

    @pytest.mark.parametrize("piece", [1, 100, 16_384, 16_385, SCRATCH_BYTES])
    def test_pieces_of_any_size_add_up_to_the_whole(self, pair: tuple[TlsStream, Connection], piece: int) -> None:
        stream, gateway = pair
        length = 3000 if piece == 1 else 300_000
        body = b"".join(pseudo_random(piece, length))
        sending = gevent.Greenlet.spawn(gateway.send, body)
        assert read(stream, length, piece) == body
        sending.get(timeout=5)

    def test_record_in_two_segments_is_read_once_complete(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        wire = gateway.encrypt(b"one record")
        gateway.send_raw(wire[:7])
        assert stream.wait_readable(5)
        assert stream.recv_into(memoryview(bytearray(20))) is None
        gateway.send_raw(wire[7:])
        assert read(stream, 10) == b"one record"

    def test_wait_ends_at_once_for_bytes_that_openssl_holds(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        gateway.send(b"one record")
        assert read(stream, 3) == b"one"
        assert stream.wait_readable(scaled(5))
        assert read(stream, 7) == b" record"
        assert stream.recv_into(memoryview(bytearray(1))) is None
        assert not stream.wait_readable(0)

    def test_bytes_that_fit_are_read_without_another_system_call(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        counted = Counting(stream._records if isinstance(stream, TlsOverSocket) else stream.transport)
        setattr(stream, "_records" if isinstance(stream, TlsOverSocket) else "transport", counted)
        gateway.send(b"one record")
        assert stream.wait_readable(scaled(5))
        assert stream.recv_into(memoryview(bytearray(SCRATCH_BYTES))) == 10
        assert counted.reads == 1


class Counting:
    """A transport, or its TLS, that counts its reads."""

    def __init__(self, counted: Any) -> None:
        self._counted = counted
        self.reads = 0

    def recv_into(self, buffer: memoryview) -> int | None:
        self.reads += 1
        return self._counted.recv_into(buffer)  # type: ignore[no-any-return]

    def read(self, length: int, buffer: memoryview) -> int:
        self.reads += 1
        return self._counted.read(length, buffer)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> object:
        return getattr(self._counted, name)


class TestEnds:
    @pytest.mark.parametrize(("end", "is_clean"), [(Connection.finish, True), (Connection.fin, False)])
    def test_last_bytes_and_the_end_of_a_bulk_transfer_are_read(
        self, pair: tuple[TlsStream, Connection], end: Callable[[Connection], None], is_clean: bool
    ) -> None:
        stream, gateway = pair
        whole = 3 * MIN_BULK_BYTES + 1000

        def play() -> None:
            gateway.send(bytes(whole))
            end(gateway)

        sending = gevent.Greenlet.spawn(play)
        total, woken_for, buffer = 0, set(), memoryview(bytearray(SCRATCH_BYTES))
        try:
            while (count := stream.recv_into(buffer)) != 0:
                if count is None:
                    stream.wait_readable()
                    woken_for.add(stream.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT))
                total += count or 0
            assert is_clean
        except StreamLost:
            assert not is_clean
        assert total == whole
        assert WAKE_BYTES in woken_for, "the transfer did not count as bulk"
        sending.get(timeout=5)

    def test_wait_ends_at_once_for_an_end_that_came_with_the_last_bytes(
        self, pair: tuple[TlsStream, Connection]
    ) -> None:
        stream, gateway = pair
        gateway.send(b"last words")
        gateway.close_notify()  # without a FIN nothing new will ever wake the socket
        assert read(stream, 4) == b"last"
        assert read(stream, 6) == b" words"
        assert stream.wait_readable(scaled(5))
        assert stream.recv_into(memoryview(bytearray(1))) == 0

    def test_close_notify_is_an_orderly_end_after_the_last_byte(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        gateway.send(b"last words")
        gateway.finish()
        assert read(stream) == b"last words"
        assert stream.recv_into(memoryview(bytearray(1))) == 0

    def test_close_notify_without_a_fin_is_an_orderly_end(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        gateway.send(b"last words")
        gateway.close_notify()
        assert read(stream) == b"last words"

    def test_bare_fin_is_a_loss_after_the_last_byte(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        gateway.send(b"last words")
        gateway.fin()
        data, loss = read_until_lost(stream)
        assert (data, str(loss)) == (b"last words", "closed without close_notify")

    def test_loss_is_raised_by_every_later_read(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        gateway.fin()
        read_until_lost(stream)
        read_until_lost(stream)

    def test_reset_is_a_loss_after_the_last_byte(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        gateway.send(b"last words")
        assert read(stream, 4) == b"last"
        gateway.reset()
        data, loss = read_until_lost(stream)
        assert data == b" words"
        assert str(loss) in ("connection reset by peer", "closed without close_notify")

    def test_reset_that_a_send_met_first_is_still_a_loss_to_the_reader(
        self, pair: tuple[TlsStream, Connection]
    ) -> None:
        stream, gateway = pair
        gateway.reset()
        wait_until(stream.is_lost)
        with pytest.raises(StreamLost):
            stream.send(b"x")
        assert read_until_lost(stream)[0] == b""

    def test_half_a_record_and_a_fin_are_a_loss(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        gateway.send(b"whole")
        gateway.send_raw(gateway.encrypt(b"half of this is missing")[:-5])
        gateway.fin()
        assert read_until_lost(stream)[0] == b"whole"

    def test_bytes_decrypted_before_a_broken_record_are_not_lost(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        broken = bytearray(gateway.encrypt(b"good") + gateway.encrypt(b"evil"))
        broken[-1] ^= 1
        gateway.send_raw(bytes(broken))
        data, loss = read_until_lost(stream)
        assert data == b"good"
        assert str(loss).startswith(("bad record mac", "record layer failure", "decryption failed or bad record mac"))

    def test_clear_text_between_records_is_a_loss(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        gateway.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        read_until_lost(stream)

    def test_closed_stream_is_lost_and_has_no_unsent_bytes(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, _ = pair
        stream.close()
        stream.close()
        stream.abort()
        assert (stream.is_lost(), stream.is_dead(), stream.unsent_bytes()) == (True, False, 0)
        with pytest.raises(StreamLost):
            stream.recv_into(memoryview(bytearray(1)))
        for data in (b"x", bytes(SCRATCH_BYTES)):
            with pytest.raises(StreamLost):
                stream.send(data)

    def test_connection_lost_before_tls_is_a_loss(self, fake: FakeGateway) -> None:
        fake.plays(Connection.reset)
        sock = socket.create_connection((LOOPBACK, fake.address.port))
        transport = SocketStream(sock)
        assert transport.wait_readable(scaled(5))
        with pytest.raises(StreamLost, match="reset"):
            transport.recv_into(memoryview(bytearray(1)))
        with pytest.raises(StreamLost):
            TlsOverSocket(transport, make_context(fake.settings.trust), HOST)
        transport.close()
        assert sock.fileno() == -1, "the descriptor is free"

    def test_abort_is_a_reset(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        stream.abort()
        with pytest.raises(ConnectionResetError):
            gateway.receive_some()


class TestSending:
    def test_empty_send_accepts_nothing(self, pair: tuple[TlsStream, Connection]) -> None:
        assert pair[0].send(b"") == 0
        assert pair[0].flush()

    def test_send_accepts_what_the_kernel_accepts_and_flush_sends_the_rest(
        self, pair: tuple[TlsStream, Connection]
    ) -> None:
        stream, gateway = pair
        body = b"".join(pseudo_random(8, 8 * MIB))
        receiving = gevent.Greenlet(gateway.receive, len(body))
        view = memoryview(body)
        while taken := stream.send(view):
            view = view[taken:]
        assert view, "8 MiB went into the kernel's buffers"
        assert not stream.flush(0)
        assert stream.unsent_bytes() > 0
        receiving.start()
        while view:
            assert stream.flush(5)
            view = view[stream.send(view) :]
        assert stream.flush(5)
        assert receiving.get(timeout=10) == body

    def test_stream_can_be_closed_after_a_greenlet_was_killed_in_its_flush(
        self, pair: tuple[TlsStream, Connection]
    ) -> None:
        stream, _ = pair
        while stream.send(bytes(SCRATCH_BYTES)):
            pass
        flushing = gevent.Greenlet.spawn(stream.flush)
        settle()
        flushing.kill()
        stream.close()

    def test_simultaneous_reads_and_writes_do_not_mix(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        up, down = b"".join(pseudo_random(9, 2 * MIB)), b"".join(pseudo_random(10, 2 * MIB))

        def send() -> None:
            view = memoryview(up)
            while view:
                view = view[stream.send(view) :]
                stream.flush()

        def serve() -> bytes:
            received = b""
            for start in range(0, len(down), 100_000):
                gateway.send(down[start : start + 100_000])
                received += gateway.receive(min(100_000, len(up) - len(received)))
            return received + gateway.receive(len(up) - len(received))

        sending, serving = gevent.Greenlet.spawn(send), gevent.Greenlet.spawn(serve)
        assert read(stream, len(down)) == down
        assert serving.get(timeout=10) == up
        sending.get(timeout=5)


class Crossed:
    """TLS that must write before it reads, and read before it writes, a given number of times each.

    A fake: real parts do this when a gateway asks for new keys while nothing fits into the kernel, or is in the middle
    of a ticket of several records.
    """

    def __init__(self, crossed: Any, times: int) -> None:
        self._crossed = crossed
        self._reads = self._writes = times

    def read(self, length: int, buffer: memoryview) -> int:
        self._reads -= 1
        if self._reads >= 0:
            raise ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "crossed")
        return self._crossed.read(length, buffer)  # type: ignore[no-any-return]

    def write(self, data: Any) -> int:
        self._writes -= 1
        if self._writes >= 0:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "crossed")
        return self._crossed.write(data)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> object:
        return getattr(self._crossed, name)


class TestCrossedDirections:
    """A wait that ends at once without helping OpenSSL would be a busy loop."""

    def test_write_that_must_read_first_is_retried_after_a_pause(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        where = "_records" if isinstance(stream, TlsOverSocket) else "_ssl"
        setattr(stream, where, Crossed(getattr(stream, where), times=2))
        gevent.get_hub().loop.update_now()
        began = loop_time()
        view = memoryview(b"to the gateway")
        while view:
            view = view[stream.send(view) :]
            assert stream.wait_writable(scaled(5))
        assert stream.flush(scaled(5))
        assert gateway.receive(14) == b"to the gateway"
        assert loop_time() - began > 0.95 * CROSSED_PAUSE_S, "no pause"

    def test_read_that_must_write_first_is_retried_after_a_pause(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        if not isinstance(stream, TlsOverSocket):
            return  # memory always has room
        stream._records = Crossed(stream._records, times=2)
        gevent.get_hub().loop.update_now()
        began = loop_time()
        gateway.send(b"from the gateway")
        assert read(stream, 16) == b"from the gateway"
        assert loop_time() - began > 0.95 * CROSSED_PAUSE_S, "no pause"

    def test_pause_does_not_exceed_the_timeout(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, _ = pair
        assert stream.recv_into(memoryview(bytearray(1))) is None
        stream._is_crossed = True
        assert not stream.wait_readable(0)
        assert not stream.wait_writable(0)
        assert stream.wait_writable(scaled(5))

    def test_handshake_with_certificates_larger_than_the_send_buffer_completes(self, fake: FakeGateway) -> None:
        names = tuple(f"{sha256(b'%d' % n).hexdigest()[:60]}.test" for n in range(500))  # nearly incompressible
        certificate = fake.authority.issue_client("large", names=names)
        fake.context.verify_mode = ssl.CERT_REQUIRED
        fake.context.load_verify_locations(fake.authority.ca_file)
        fake.plays(play.secures)
        trust = replace(
            fake.settings.trust, client_cert_file=certificate.cert_file, client_key_file=certificate.key_file
        )
        fake._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock.connect((LOOPBACK, fake.address.port))
        stream, crossed = TlsOverSocket(SocketStream(sock), make_context(trust), HOST), 0
        while not stream.handshake_step():
            crossed += stream._is_crossed
            assert stream.wait_readable(scaled(5))
        assert crossed, "all found room at once"
        fake.tunnel().send(b"come in")
        assert read(stream, 7) == b"come in"
        stream.close()


def loop_time() -> float:
    """Return the event loop's own time, which timers go by however late the machine runs them."""
    return float(gevent.get_hub().loop.now())


class TestLingeringClose:
    def test_end_is_close_notify_and_fin(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        stream.send(b"last words")
        stream.send_eof()
        assert gateway.receive_all() == b"last words"
        assert gateway.sock.recv(1) == b""

    def test_end_follows_bytes_that_the_kernel_did_not_accept_at_first(
        self, pair: tuple[TlsStream, Connection]
    ) -> None:
        stream, gateway = pair
        sent = 0
        while taken := stream.send(bytes(SCRATCH_BYTES)):
            sent += taken
        stream.send_eof()
        receiving = gevent.Greenlet.spawn(gateway.receive_all)
        lingering = gevent.Greenlet.spawn(linger, stream, 5, until_eof=True)
        assert len(receiving.get(timeout=10)) == sent
        gateway.finish()
        lingering.get(timeout=5)

    def test_linger_waits_for_the_gateways_end_and_discards_its_bytes(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        stream.send_eof()
        gateway.send(bytes(200_000))
        lingering = gevent.Greenlet.spawn(linger, stream, 5, until_eof=True)
        assert gateway.receive_all() == b""
        assert not lingering.ready()
        gateway.finish()
        lingering.get(timeout=5)

    def test_bytes_that_arrived_before_the_end_do_not_disturb_it(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, gateway = pair
        gateway.send(b"x" * 1000)
        read(stream, 1)
        stream.send_eof()
        gateway.send(b"y" * 1000)
        gateway.finish()
        linger(stream, 5, until_eof=True)

    def test_linger_gives_up_on_a_stalled_gateway(self, pair: tuple[TlsStream, Connection]) -> None:
        stream, _ = pair
        stream.send_eof()
        linger(stream, 0.05, until_eof=True)

    def test_linger_on_a_socket_waits_only_for_the_peers_kernel(self) -> None:
        ours, theirs = connected_pair()
        stream = SocketStream(ours)
        theirs.send(b"never read")
        assert stream.send(b"last words") == 10
        stream.send_eof()
        linger(stream, 5)
        stream.close()
        assert theirs.recv(100) == b"last words"
        theirs.close()

    def test_linger_on_a_socket_with_an_endless_sender_does_not_block_the_hub(self) -> None:
        ours, theirs = connected_pair()
        stream = SocketStream(ours)
        theirs.setblocking(False)
        while stream.send(bytes(SCRATCH_BYTES)):
            pass
        floods: list[int] = []

        def flood() -> None:
            while len(floods) < 50:
                try:
                    theirs.send(bytes(SCRATCH_BYTES))
                except BlockingIOError:
                    gevent.sleep(0)
                floods.append(1)

        flooding = gevent.Greenlet.spawn(flood)
        lingering = gevent.Greenlet.spawn(linger, stream, 60)
        flooding.get(timeout=10)
        assert not lingering.ready()
        lingering.kill()
        stream.close()
        theirs.close()


class TestPlainSockets:
    def test_reset_that_a_send_met_first_is_still_a_loss_to_the_reader(self) -> None:
        """The kernel reports the reset once, and then an end that looks orderly."""
        ours, theirs = connected_pair()
        stream = SocketStream(ours)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        wait_until(stream.is_lost)
        with pytest.raises(StreamLost):
            stream.send(b"x")
        with pytest.raises(StreamLost):
            stream.recv_into(memoryview(bytearray(1)))
        stream.close()

    def test_new_stream_on_a_reused_descriptor_gets_its_own_events(self) -> None:
        ours, theirs = connected_pair()
        stream = SocketStream(ours)
        number = ours.fileno()
        waiting = gevent.Greenlet.spawn(stream.wait_readable)
        settle()
        waiting.kill()
        stream.close()
        theirs.close()
        again, other = pair_with(number)
        second = SocketStream(again)
        assert not second.wait_readable(0.02)
        other.send(b"x")
        assert second.wait_readable(5)
        second.close()
        other.close()

    def test_watcher_stops_with_the_stream(self) -> None:
        ours, theirs = connected_pair()
        stream, calls = SocketStream(ours), []
        stream.watch(lambda: calls.append(1))
        stream.close()
        theirs.close()
        gevent.sleep(0.02)
        assert not calls


def connected_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server((LOOPBACK, 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


def pair_with(number: int) -> tuple[socket.socket, socket.socket]:
    """Return a pair in which the first socket has this descriptor, once no other thread of the tests holds it."""
    one, two = connected_pair()
    if two.fileno() == number:
        return two, one
    while one.fileno() != number:
        copy = socket.socket(fileno=fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, number))
        one.close()
        one = copy
    return one, two


# --- what only OpenSSL's own server can do ----------------------------------------------------------------------------


class OpenSslServer:
    """``openssl s_server``: a line that starts with K requests a key update, one with R a renegotiation."""

    def __init__(self, authority: Authority, *options: str) -> None:
        certificate = authority.issue_server("openssl")
        self.port = unused_port()
        openssl = shutil.which("openssl")
        assert openssl, "these tests need the openssl command"
        self.process = processes.Process(
            [openssl, "s_server", "-accept", f"{LOOPBACK}:{self.port}", "-cert", str(certificate.cert_file),
             "-key", str(certificate.key_file), *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
        )  # fmt: skip
        wait_until(self._listens)

    def type(self, line: str) -> None:
        """Type a line. The server drops a second line that comes before it has read the first."""
        self.process.stdin.write(f"{line}\n".encode())  # type: ignore[union-attr]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()  # type: ignore[union-attr]

    def _listens(self) -> bool:
        needle = f"0100007F:{self.port:04X} 00000000:0000 0A"
        return needle in Path("/proc/net/tcp").read_text()


def settings(server: OpenSslServer, authority: Authority) -> Gateway:
    return Gateway(
        "openssl", HostPort(HOST, server.port), connect_to=HostPort(LOOPBACK, server.port),
        trust=Trust(ca_file=authority.ca_file),
    )  # fmt: skip


@pytest.fixture
def openssl(
    no_leaks: None, authority: Authority, with_stream_kind: Callable[[Gateway], Gateway]
) -> Iterator[Callable[..., tuple[OpenSslServer, TlsStream]]]:
    """Return a function that starts a server with options, and returns it and a stream to it."""
    stack = ExitStack()

    def start(*options: str) -> tuple[OpenSslServer, TlsStream]:
        server = OpenSslServer(authority, *options)
        stack.callback(server.close)
        stream = dialled(with_stream_kind(settings(server, authority)))
        stack.callback(stream.close)
        return server, stream

    with stack:
        yield start


def test_key_update_during_a_transfer_is_invisible(openssl: Callable[..., tuple[OpenSslServer, TlsStream]]) -> None:
    server, stream = openssl("-tls1_3", "-num_tickets", "0")
    for number in range(3):
        server.type("K")
        read_record_without_data(stream)
        assert echo_of(stream, server, f"line {number}") == b"line %d\n" % number
        assert stream.send(b"answer\n") == 7
        assert stream.flush(5)


def test_renegotiation_is_declined_and_no_send_gets_stuck_in_it(
    openssl: Callable[..., tuple[OpenSslServer, TlsStream]],
) -> None:
    server, stream = openssl("-tls1_2")
    server.type("r")
    with suppress(StreamLost):  # if the loss comes first
        read_record_without_data(stream)
        assert stream.send(b"still here\n") == 11
    _, loss = read_until_lost(stream)  # this server insists and sends an alert, others go on
    assert loss.alert == "SSLV3_ALERT_HANDSHAKE_FAILURE"


def echo_of(stream: TlsStream, server: OpenSslServer, line: str) -> bytes:
    """Type a line and return what comes back. Type it again if the server was busy and dropped it."""
    buffer = memoryview(bytearray(100))
    while (count := stream.recv_into(buffer)) is None:
        if not stream.wait_readable(scaled(0.5)):
            server.type(line)
    return bytes(buffer[:count])


def read_record_without_data(stream: TlsStream) -> None:
    assert stream.wait_readable(scaled(5))
    assert stream.recv_into(memoryview(bytearray(10))) is None
