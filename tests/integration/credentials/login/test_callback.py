"""The listener that waits for a login's browser: what it answers, its limits, and how it ends."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from pomagent.credentials.login import callback
from pomagent.credentials.login.callback import MAX_CONNECTIONS, MAX_HEAD_BYTES, CallbackServer, Cancelled
from pomagent.errors import CredentialError
from pomagent.runtime.deadline import Deadline
from tests.conftest import wait_until
from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import scaled


class Waiting:
    """A server that waits in a thread of its own."""

    def __init__(self) -> None:
        self.forgeries: list[str] = []
        self.server = CallbackServer(0, self.forgeries.append)
        self._pool = ThreadPoolExecutor(1)
        self.outcome = self._pool.submit(self.server.wait, Deadline(scaled(20)))

    def close(self) -> None:
        self.server.cancel()
        self._pool.shutdown()
        self.server.__exit__(None, None, None)

    @property
    def path(self) -> str:
        return self.server.redirect.path

    def connect(self) -> socket.socket:
        return socket.create_connection((LOOPBACK, self.server.redirect.port), scaled(10))

    def ask(self, request: bytes) -> bytes:
        with self.connect() as client:
            client.sendall(request)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def get(self, target: str) -> bytes:
        return self.ask(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def token(self) -> str:
        found = self.outcome.result(scaled(20))
        assert found is not None
        return found.get_secret_value()


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    running = Waiting()
    yield running
    running.close()


def test_it_listens_on_loopback_alone(waiting):
    name = waiting.server._listener.getsockname()[0]
    assert name == LOOPBACK


def test_the_browser_gets_the_page_and_the_login_its_token(waiting):
    answer = waiting.get(f"{waiting.path}?pomerium_jwt=eyJ.a.b")
    assert b"You are signed in" in answer
    assert b"Content-Security-Policy: default-src 'none'" in answer
    assert b"eyJ.a.b" not in answer
    assert waiting.token() == "eyJ.a.b"


def test_a_request_in_pieces_is_one_request(waiting):
    request = f"GET {waiting.path}?pomerium_jwt=eyJ.a.b HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with waiting.connect() as client:
        for at in range(0, len(request), 7):
            client.sendall(request[at : at + 7])
        assert client.recv(100).startswith(b"HTTP/1.1 404")
    assert waiting.token() == "eyJ.a.b"


def test_a_forgery_is_refused_and_told_and_the_next_one_may_be_right(waiting):
    answer = waiting.get("/cb/guessed?pomerium_jwt=eyJ.evil.b")
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"evil" not in answer
    (told,) = waiting.forgeries
    assert LOOPBACK in told
    assert "evil" not in told
    waiting.get(f"{waiting.path}?pomerium_jwt=eyJ.a.b")
    assert waiting.token() == "eyJ.a.b"


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS"])
def test_only_a_get_brings_a_token(waiting, method):
    answer = waiting.ask(f"{method} {waiting.path}?pomerium_jwt=eyJ.a.b HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 405")
    assert not waiting.outcome.done()


@pytest.mark.parametrize(
    "request_", [b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / x y z\r\n\r\n"]
)
def test_what_is_no_request_disturbs_nothing(waiting, request_):
    assert b" 200 " not in waiting.ask(request_)
    waiting.get(f"{waiting.path}?pomerium_jwt=eyJ.a.b")
    assert waiting.token() == "eyJ.a.b"


@pytest.mark.parametrize(
    ("size", "is_answered"), [(MAX_HEAD_BYTES - 1, True), (MAX_HEAD_BYTES, True), (MAX_HEAD_BYTES + 1, False)]
)
def test_a_head_has_a_limit(waiting, size, is_answered):
    start, end = b"GET / HTTP/1.1\r\nX: ", b"\r\n\r\n"
    request = start + b"x" * (size - len(start) - len(end)) + end
    try:
        answer = waiting.ask(request)
    except ConnectionError:
        answer = b""
    assert bool(answer) is is_answered


@pytest.mark.parametrize("count", [MAX_CONNECTIONS - 1, MAX_CONNECTIONS, MAX_CONNECTIONS + 1])
def test_connections_have_a_limit_and_the_oldest_gives_way(waiting, count):
    silent = [waiting.connect() for _ in range(count)]
    wait_until(lambda: len(waiting.server._heads) == min(count, MAX_CONNECTIONS))
    is_closed = bool(select.select([silent[0]], [], [], 0.2 if count <= MAX_CONNECTIONS else scaled(5))[0])
    assert is_closed is (count > MAX_CONNECTIONS)
    waiting.get(f"{waiting.path}?pomerium_jwt=eyJ.a.b")
    assert waiting.token() == "eyJ.a.b"
    for client in silent:
        client.close()


def test_a_cancelled_login_ends_at_once(waiting):
    waiting.server.cancel()
    with pytest.raises(Cancelled):
        waiting.outcome.result(scaled(5))


def test_nobody_in_time_is_none():
    with CallbackServer(0, lambda _: None) as server:
        assert server.wait(Deadline(0.05)) is None


def test_a_closed_login_listens_no_more():
    with CallbackServer(0, lambda _: None) as server:
        port = server.redirect.port
    with socket.socket() as probe:
        assert probe.connect_ex((LOOPBACK, port)) != 0


def test_two_logins_have_two_nonces():
    with CallbackServer(0, lambda _: None) as one, CallbackServer(0, lambda _: None) as two:
        assert one.redirect.path != two.redirect.path
        assert len(one.redirect.nonce) >= 43


def test_a_port_that_is_taken_is_said():
    with socket.create_server((LOOPBACK, 0)) as taken, pytest.raises(CredentialError, match="cannot listen on 127"):
        CallbackServer(taken.getsockname()[1], lambda _: None)


class TestPasting:
    @pytest.fixture
    def pipe(self) -> Iterator[tuple[BinaryIO, BinaryIO]]:
        source, sink = os.pipe()
        with os.fdopen(source, "rb", 0) as reader, os.fdopen(sink, "wb", 0) as writer:
            yield reader, writer

    def paste(
        self, pipe: tuple[BinaryIO, BinaryIO], text: bytes, *, is_end: bool = False, wait_s: float = 0.3
    ) -> tuple[str, list[str]]:
        complaints: list[str] = []
        with CallbackServer(0, lambda _: None) as server:
            server.take_pastes(pipe[0].fileno(), complaints.append)
            pipe[1].write(text.replace(b"URI", server.redirect.uri.encode()))
            if is_end:
                pipe[1].close()
            token = server.wait(Deadline(wait_s))
        return token.get_secret_value() if token else "", complaints

    @pytest.mark.parametrize("text", [b"URI?pomerium_jwt=eyJ.a.b\n", b"\n\n  URI?pomerium_jwt=eyJ.a.b \r\n"])
    def test_a_pasted_address_is_as_good(self, pipe, text):
        assert self.paste(pipe, text) == ("eyJ.a.b", [])

    def test_the_last_line_needs_no_end(self, pipe):
        assert self.paste(pipe, b"URI?pomerium_jwt=eyJ.a.b", is_end=True) == ("eyJ.a.b", [])

    def test_another_line_is_told_to_be_no_help_and_may_be_followed_by_the_right_one(self, pipe):
        token, complaints = self.paste(pipe, b"hello\nhttp://x/cb/y?pomerium_jwt=eyJ.e.f\nURI?pomerium_jwt=eyJ.a.b\n")
        assert token == "eyJ.a.b"
        assert len(complaints) == 2
        assert not any("eyJ" in complaint for complaint in complaints)

    def test_an_end_of_input_ends_no_login(self, pipe):
        assert self.paste(pipe, b"\n", is_end=True) == ("", [])

    @pytest.mark.parametrize("size", [callback.MAX_PASTED_BYTES, callback.MAX_PASTED_BYTES + 60_000])
    def test_what_is_pasted_has_a_limit(self, pipe, size):
        with CallbackServer(0, lambda _: None) as server, ThreadPoolExecutor(1) as pool:
            server.take_pastes(pipe[0].fileno(), lambda _: None)
            os.set_blocking(pipe[1].fileno(), False)

            def flood() -> int:
                sent = 0
                while sent < size and select.select([], [pipe[1]], [], 0.3)[1]:
                    sent += pipe[1].write(b"x" * min(4096, size - sent)) or 0
                return sent

            flooding = pool.submit(flood)
            assert server.wait(Deadline(0.6)) is None
            assert len(server._pasted) <= callback.MAX_PASTED_BYTES + 64 * 1024
            assert flooding.result() > 0

    def test_a_file_or_nothing_to_read_from_is_no_problem(self):
        with Path(os.devnull).open("rb") as nothing, CallbackServer(0, lambda _: None) as server:
            server.take_pastes(nothing.fileno(), lambda _: None)
            assert server.wait(Deadline(0.05)) is None
