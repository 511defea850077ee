"""The callback server answers browsers within limits until the login ends."""

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
    """A server that waits in its own thread."""

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

    def send(self, request: bytes) -> bytes:
        with self.connect() as client:
            client.sendall(request)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def get(self, target: str) -> bytes:
        return self.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def token(self) -> str:
        found = self.outcome.result(scaled(20))
        assert found is not None
        return found.get_secret_value()


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    running = Waiting()
    yield running
    running.close()


def test_the_server_listens_on_loopback_only(waiting):
    name = waiting.server._listener.getsockname()[0]
    assert name == LOOPBACK


def test_a_callback_is_answered_with_the_page_and_returns_the_token(waiting):
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


def test_a_forged_callback_is_refused_and_reported_and_the_login_goes_on(waiting):
    answer = waiting.get("/cb/guessed?pomerium_jwt=eyJ.evil.b")
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"evil" not in answer
    (report,) = waiting.forgeries
    assert LOOPBACK in report
    assert "evil" not in report
    waiting.get(f"{waiting.path}?pomerium_jwt=eyJ.a.b")
    assert waiting.token() == "eyJ.a.b"


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS"])
def test_a_token_is_accepted_from_get_requests_only(waiting, method):
    answer = waiting.send(
        f"{method} {waiting.path}?pomerium_jwt=eyJ.a.b HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode()
    )
    assert answer.startswith(b"HTTP/1.1 405")
    assert not waiting.outcome.done()


@pytest.mark.parametrize(
    "request_", [b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / x y z\r\n\r\n"]
)
def test_a_malformed_request_is_ignored(waiting, request_):
    assert b" 200 " not in waiting.send(request_)
    waiting.get(f"{waiting.path}?pomerium_jwt=eyJ.a.b")
    assert waiting.token() == "eyJ.a.b"


@pytest.mark.parametrize(
    ("size", "is_answered"), [(MAX_HEAD_BYTES - 1, True), (MAX_HEAD_BYTES, True), (MAX_HEAD_BYTES + 1, False)]
)
def test_an_oversized_head_is_not_answered(waiting, size, is_answered):
    start, end = b"GET / HTTP/1.1\r\nX: ", b"\r\n\r\n"
    request = start + b"x" * (size - len(start) - len(end)) + end
    try:
        answer = waiting.send(request)
    except ConnectionError:
        answer = b""
    assert bool(answer) is is_answered


@pytest.mark.parametrize("count", [MAX_CONNECTIONS - 1, MAX_CONNECTIONS, MAX_CONNECTIONS + 1])
def test_the_oldest_connection_is_closed_above_the_limit(waiting, count):
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


def test_a_wait_without_a_callback_returns_none():
    with CallbackServer(0, lambda _: None) as server:
        assert server.wait(Deadline(0.05)) is None


def test_a_closed_server_does_not_listen():
    with CallbackServer(0, lambda _: None) as server:
        port = server.redirect.port
    with socket.socket() as probe:
        assert probe.connect_ex((LOOPBACK, port)) != 0


def test_two_logins_have_two_nonces():
    with CallbackServer(0, lambda _: None) as one, CallbackServer(0, lambda _: None) as two:
        assert one.redirect.path != two.redirect.path
        assert len(one.redirect.nonce) >= 43


def test_a_taken_port_is_reported():
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
    def test_a_pasted_address_returns_the_token(self, pipe, text):
        assert self.paste(pipe, text) == ("eyJ.a.b", [])

    def test_the_last_line_needs_no_newline(self, pipe):
        assert self.paste(pipe, b"URI?pomerium_jwt=eyJ.a.b", is_end=True) == ("eyJ.a.b", [])

    def test_a_wrong_line_is_reported_and_may_be_followed_by_the_right_one(self, pipe):
        token, complaints = self.paste(pipe, b"hello\nhttp://x/cb/y?pomerium_jwt=eyJ.e.f\nURI?pomerium_jwt=eyJ.a.b\n")
        assert token == "eyJ.a.b"
        assert len(complaints) == 2
        assert not any("eyJ" in complaint for complaint in complaints)

    def test_the_end_of_input_does_not_end_the_login(self, pipe):
        assert self.paste(pipe, b"\n", is_end=True) == ("", [])

    @pytest.mark.parametrize("size", [callback.MAX_PASTED_BYTES, callback.MAX_PASTED_BYTES + 60_000])
    def test_pasted_text_is_bounded(self, pipe, size):
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

    def test_a_file_as_input_is_ignored(self):
        with Path(os.devnull).open("rb") as nothing, CallbackServer(0, lambda _: None) as server:
            server.take_pastes(nothing.fileno(), lambda _: None)
            assert server.wait(Deadline(0.05)) is None
