"""Browsers and stalled clients that attack the status server of a real agent."""

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pomagent.admin.status.server import MAX_CONNECTIONS
from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import wait_until
from tests.support.agent.agent_process import AgentProcess, connect
from tests.support.agent.bastion import ANY, Bastion, hear, say
from tests.support.browser.web_page import WebPage
from tests.support.inspection.scrape import ask

STATUS = {"listen": ANY}


def port_of(agent: AgentProcess) -> int:
    return int(agent.wait_for("listener.bound", serves="status")["listen"].rpartition(":")[2])


# Browsers.


class Blank(BaseHTTPRequestHandler):
    """Another website."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title><a id=link>look</a>")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def website(name: str) -> Iterator[str]:
    server = HTTPServer((LOOPBACK, 0), Blank)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://{name}:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_dns_rebinding_shows_nothing(bastion: Bastion, tmp_path: Path) -> None:
    agent = bastion.start({"echo": ANY}, status=STATUS)
    rebound = f"http://evil.example.com:{port_of(agent)}/"
    with WebPage(tmp_path, rebound, f"--host-resolver-rules=MAP evil.example.com {LOOPBACK}") as page:
        assert "the request names another host" in page.text()
        text = page.run("fetch('/status.json').then(answer => answer.text())")
    assert "the request names another host" in text
    assert agent.wait_for("status.refused")["why"] == "the request names another host"


@pytest.mark.parametrize("name", [LOOPBACK, "localhost"])
@pytest.mark.parametrize(
    "attack",
    ["fetch(ADDRESS, {mode: 'no-cors'}).then(() => 'shown', () => 'refused')",
     "fetch(ADDRESS).then(answer => answer.text(), () => 'refused')",
     "void document.body.append(Object.assign(document.createElement('img'), {src: ADDRESS}))",
     "void document.body.append(Object.assign(document.createElement('iframe'), {src: ADDRESS}))"],
    ids=["no-cors", "cors", "image", "frame"],
)  # fmt: skip
def test_another_website_gets_nothing_even_on_this_host(
    bastion: Bastion, tmp_path: Path, name: str, attack: str
) -> None:
    agent = bastion.start({"echo": ANY}, status=STATUS)
    address = f"'http://{LOOPBACK}:{port_of(agent)}/status.json'"
    with website(name) as elsewhere, WebPage(tmp_path, elsewhere) as page:
        assert page.run(attack.replace("ADDRESS", address)) in (None, "refused")
        assert agent.wait_for("status.refused")["why"] == "another website sent the request through a browser"


def test_a_link_from_another_website_leads_to_the_page(bastion: Bastion, tmp_path: Path) -> None:
    agent = bastion.start({"echo": ANY}, status=STATUS)
    with website("localhost") as elsewhere, WebPage(tmp_path, elsewhere) as page:
        page.run(f"(link.href = 'http://{LOOPBACK}:{port_of(agent)}/', link.click())")
        page.wait_for("echo", "#rows")
        assert page.complaints == []
    assert not agent.events("status.refused")


# Stalled clients.


def never_reading(port: int) -> socket.socket:
    """A scraper that stops reading before the response is complete."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    client.connect((LOOPBACK, port))
    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return client


def half_a_request(port: int) -> socket.socket:
    client = socket.create_connection((LOOPBACK, port))
    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: loc")
    return client


def silent(port: int) -> socket.socket:
    return socket.create_connection((LOOPBACK, port))


@pytest.mark.parametrize("hang", [never_reading, half_a_request, silent])
def test_stalled_clients_affect_no_session_and_no_scraper(bastion: Bastion, hang) -> None:
    agent = bastion.start({"echo": ANY}, status=STATUS)
    port, data = port_of(agent), os.urandom(256 * 1024)
    before = agent.descriptors()
    with ExitStack() as stack:
        client = stack.enter_context(connect(agent.port("echo")))
        assert say(client) == b"hello\n"
        for _ in range(3 * MAX_CONNECTIONS):
            stack.enter_context(hang(port))
            assert say(client) == b"hello\n"
        assert ask(port, "/metrics").value("pomagent_sessions_active", route="echo") == 1
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        assert hashlib.sha256(hear(client, len(data))).digest() == hashlib.sha256(data).digest()
        sender.join()
        assert agent.descriptors() < before + MAX_CONNECTIONS + 10
        with connect(agent.port("echo")) as another:
            assert say(another) == b"hello\n"
    wait_until(lambda: agent.descriptors() <= before + 4)


def test_an_unread_response_times_out(bastion: Bastion) -> None:
    agent = bastion.start({f"echo-{number}.example.test:1": ANY for number in range(300)}, status=STATUS)
    port = port_of(agent)
    assert len(ask(port, "/metrics").text) > 256 * 1024
    before = agent.descriptors()
    with never_reading(port):
        wait_until(lambda: agent.descriptors() > before)
        wait_until(lambda: agent.descriptors() <= before, 30, "the end of its ten seconds")
