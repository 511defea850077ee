"""Requests over the control socket: size and form of their bodies, and permission."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from pomagent.admin.control import client, server
from pomagent.admin.control.client import ControlError
from pomagent.admin.control.server import MAX_BODY_BYTES, ControlServer, Declined
from pomagent.admin.json_object import JsonObject
from pomagent.errors import BindError
from pomagent.runtime.threads import Threads
from pomagent.runtime.unix_peer import Peer
from tests.fakes.greenlets import caught_crashes
from tests.fakes.log import FakeLog
from tests.gateway.waiting import wait_until


class Agent:
    """A control server that keeps the bodies sent to ``/take``."""

    def __init__(self, directory: Path) -> None:
        self.taken: list[JsonObject] = []
        self.log = FakeLog()
        self.path = directory / "control.sock"
        self._threads = Threads(1)
        self.server = ControlServer(
            self.path, {"/status": lambda: {"is": "well"}}, {"/reload": lambda: {}, "/crash": self._crash},
            self.log.log, body_handlers={"/take": self._take, "/decline": self._decline},
        )  # fmt: skip

    def _crash(self) -> JsonObject:
        raise LookupError("a bug")

    def _take(self, document: JsonObject) -> JsonObject:
        self.taken.append(document)
        return {"taken": len(self.taken)}

    def _decline(self, document: JsonObject) -> JsonObject:
        raise Declined("not with this agent")

    def ask(self, method: str, url: str, body: dict[str, object] | None = None) -> dict[str, object]:
        answer: dict[str, object] = self._threads.call(client.ask, self.path, method, url, body)
        return answer

    def send(self, head: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send raw bytes and return the status and the body of the answer."""

        def exchange() -> tuple[int, bytes]:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(str(self.path))
                connection.sendall(f"{head}\r\nHost: x\r\nConnection: close\r\n\r\n".encode() + body)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]

        return self._threads.call(exchange)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    running = Agent(tmp_path)
    running.server.start()
    yield running
    running.server.close()


def test_a_body_reaches_its_handler_and_is_not_logged(agent):
    assert agent.ask("POST", "/take", {"token": "eyJ.S3CR3T.x"}) == {"taken": 1}
    assert agent.taken == [{"token": "eyJ.S3CR3T.x"}]
    assert agent.log.events == ["control.changed"]
    assert "S3CR3T" not in agent.log.text


def test_arguments_of_a_command_are_logged_but_no_secret(agent):
    agent.ask("POST", "/take", {"routes": ["echo"], "token": "eyJ.S3CR3T.x"})
    (changed,) = agent.log.named("control.changed")
    assert (changed["command"], changed["arguments"]) == ("take", {"routes": ["echo"]})


def test_actions_without_a_body_are_as_before(agent):
    assert agent.ask("GET", "/status") == {"is": "well"}
    assert agent.ask("POST", "/reload") == {}


def test_a_declined_request_is_reported(agent):
    with pytest.raises(ControlError, match="not with this agent"):
        agent.ask("POST", "/decline", {})


@pytest.mark.parametrize(
    ("size", "status"), [(MAX_BODY_BYTES - 1, 200), (MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)]
)
def test_a_body_has_a_limit(agent, size, status):
    body = json.dumps({"x": "y" * (size - len('{"x": ""}'))}).encode()
    assert len(body) == size
    assert agent.send(f"POST /take HTTP/1.1\r\nContent-Length: {size}", body)[0] == status
    assert len(agent.taken) == (status == 200)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"1", b"{", b"\xff", b"[" * 50_000])
def test_a_body_that_is_not_a_json_object_is_rejected_and_not_repeated(agent, body):
    status, answer = agent.send(f"POST /take HTTP/1.1\r\nContent-Length: {len(body)}", body)
    assert (status, agent.taken) == (400, [])
    assert b"expected a JSON object" in answer


@pytest.mark.parametrize("header", ["X: y", "Transfer-Encoding: chunked"])
def test_a_body_without_a_length_is_rejected(agent, header):
    assert (
        agent.send(f"POST /take HTTP/1.1\r\n{header}", b"2\r\n{}\r\n0\r\n\r\n" if "chunked" in header else b"")[0]
        == 411
    )
    assert agent.taken == []


@pytest.mark.parametrize("length", ["-1", "x", "99999999999999999999"])
def test_an_invalid_length_is_rejected(agent, length, monkeypatch):
    monkeypatch.setattr("pomagent.admin.control.server.READ_TIMEOUT_S", 0.2)
    assert agent.send(f"POST /take HTTP/1.1\r\nContent-Length: {length}")[0] in {400, 411, 413}
    assert agent.taken == []


def test_a_handler_of_post_does_not_answer_get(agent):
    assert agent.send("GET /take HTTP/1.1")[0] == 404


def test_a_missing_body_times_out(agent, monkeypatch):
    monkeypatch.setattr("pomagent.admin.control.server.READ_TIMEOUT_S", 0.2)
    assert agent.send("POST /take HTTP/1.1\r\nContent-Length: 2", b"{")[0] == 400


def test_a_bug_is_reported_to_the_client(agent):
    with caught_crashes() as crashes, pytest.raises(ControlError, match="POST /crash met a bug in the agent"):
        agent.ask("POST", "/crash")
    assert [str(crash) for crash in crashes] == ["a bug"]


def test_a_slow_group_lookup_does_not_block_the_hub(agent, monkeypatch):
    asked, release, released = threading.Event(), threading.Event(), []

    def slow(name: str) -> None:
        asked.set()
        released.append(release.wait(5))
        raise KeyError(name)

    monkeypatch.setattr(server.grp, "getgrnam", slow)
    monkeypatch.setattr(server.os, "geteuid", lambda: 4711)
    monkeypatch.setattr(server, "peer_of", lambda _: Peer(1, 65534, 65534))
    asking = gevent.Greenlet.spawn(agent.ask, "GET", "/status")
    wait_until(asked.is_set)
    release.set()  # in this thread, which would be too late if the hub were blocked
    with pytest.raises(ControlError, match="may do this"):
        asking.get()
    assert released == [True]


def test_an_incomplete_request_is_dropped_without_output(agent, monkeypatch, capfd):
    monkeypatch.setattr(server, "READ_TIMEOUT_S", 0.1)

    def begin() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(agent.path))
            connection.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\nX-More: ")
            return b"".join(iter(lambda: connection.recv(65536), b""))

    Threads(1).call(begin)
    assert capfd.readouterr() == ("", "")


class TestLostSocketFile:
    """The file of the control socket is removed or replaced behind the agent's back."""

    def test_removed_file_is_bound_again(self, agent):
        agent.path.unlink()
        agent.server.mend()
        assert agent.ask("GET", "/status") == {"is": "well"}
        assert agent.log.named("listener.lost")

    def test_present_file_is_left_alone(self, agent):
        found = agent.path.stat().st_ino
        agent.server.mend()
        assert agent.path.stat().st_ino == found

    def test_file_of_another_program_stays_until_it_is_gone(self, agent):
        agent.path.unlink()
        agent.path.write_text("not ours")
        with pytest.raises(BindError):
            agent.server.mend()
        assert agent.path.read_text() == "not ours"
        agent.path.unlink()
        agent.server.mend()
        assert agent.ask("GET", "/status") == {"is": "well"}

    def test_socket_that_could_not_be_bound_at_the_start_is_tried_again(self, tmp_path):
        late = Agent(tmp_path)
        late.path.write_text("not ours")
        with pytest.raises(BindError):
            late.server.start()
        late.path.unlink()
        late.server.mend()
        assert late.ask("GET", "/status") == {"is": "well"}
        late.server.close()
