"""The status page of a real agent in a real Chromium."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.facade import Gateway
from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import wait_until
from tests.support.agent.agent_process import AgentProcess, connect
from tests.support.agent.bastion import ANY, Bastion, say
from tests.support.browser.axe import violations
from tests.support.browser.web_page import DESKTOP, PHONE, WebPage
from tests.support.inspection.scrape import ask

STATUS = {"listen": ANY}
VARIANTS = [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")]


def address(agent: AgentProcess) -> str:
    agent.wait_for("listener.bound", serves="status")
    return f"http://{agent.events('listener.bound', serves='status')[-1]['listen']}/"


@pytest.fixture
def agent(bastion: Bastion) -> AgentProcess:
    routes = {
        "echo": {"listen": ANY, "tags": ["prod", "orders"], "description": "Orders, primary"},
        "banner": ANY,
        "down": {"listen": ANY, "warm": "tunnel"},
        "page": {"listen": ANY, "enabled": False},
    }
    return bastion.start(routes, status=STATUS)


@pytest.fixture
def page(agent: AgentProcess, tmp_path: Path) -> Iterator[WebPage]:
    with WebPage(tmp_path, address(agent)) as shown:
        shown.wait_for("echo", "#rows")
        yield shown
        assert shown.complaints == []


def row(page: WebPage, route: str) -> str:
    """Return the text of a route's row with its reason."""
    return str(page.run(
        "[...document.querySelectorAll('#rows tr')].filter(r => r.querySelector('.name button')?.textContent"
        f" === {json.dumps(route)}).map(r => r.innerText + ' ' + r.nextSibling.innerText)[0] ?? ''"
    ))  # fmt: skip


def names(page: WebPage) -> list[str]:
    found: list[str] = page.run("[...document.querySelectorAll('#rows .name button')].map(b => b.textContent)")
    return found


def test_a_route_goes_down_and_recovers_on_the_open_page(
    bastion: Bastion, gateway: Gateway, tmp_path: Path, unused_port: int
) -> None:
    server = socket.create_server((LOOPBACK, 0))
    port = server.getsockname()[1]
    name = "orders.example.test:7100"
    with gateway.route(name, port):
        agent = bastion.start({name: {"listen": ANY, "warm": "tunnel", "pool_max_age_s": 1}}, status=STATUS)
        route = "orders.example.test-7100"
        with WebPage(tmp_path, address(agent)) as page:
            wait_until(lambda: "up" in row(page, route), what="the route up")
            page.wait_for("The route is up", "#verdict")
            server.close()
            wait_until(lambda: "down" in row(page, route) and "503" in row(page, route), what="the route down, and why")
            page.wait_for("1 of 1 route needs attention", "#verdict")
            wait_until(lambda: page.run("document.title") == "(1) pomagent")
            server = socket.create_server((LOOPBACK, port))
            page.wait_for("The route is up", "#verdict")
            page.wait_for("breaker.closed", "#events")
            assert page.complaints == []
        server.close()


def test_a_token_that_expires_soon_is_marked(bastion: Bastion, agent: AgentProcess, page: WebPage) -> None:
    bastion.replace_token(bastion.gateway.new_token(expires_in_s=1800))
    page.wait_for("29 m", "#credentials")
    assert page.run("document.querySelector('#credentials .card').className") == "card warn"


def test_a_rejected_edit_is_explained_until_it_is_corrected(
    bastion: Bastion, agent: AgentProcess, page: WebPage
) -> None:
    good = bastion.path.read_text()
    bastion.save_text(good + '\n[[routes]]\nname = "twice"\nfrom = "<b>"\nlisten = "127.0.0.1:0"\n')
    page.wait_for("the last edit was rejected", "#verdict")
    shown = page.wait_for("last edit rejected", "#configuration")
    assert "routes.twice.from" in shown
    bastion.save_text(good + "\n# mended\n")
    page.wait_for("last edit applied", "#configuration")
    assert "rejected" not in page.text("#verdict")


def test_sessions_show_user_and_traffic(agent: AgentProcess, page: WebPage) -> None:
    with connect(agent.port("echo")) as client:
        assert say(client, bytes(100_000)) == bytes(100_000)
        shown = page.wait_for("echo", "#sessions")
        assert "100 kB" in shown
        assert "root" in shown or str(os.geteuid()) in shown
    page.wait_for("No running sessions", "#more-sessions")


def test_routes_are_found_by_name_tag_and_state_with_the_keyboard_alone(page: WebPage) -> None:
    assert names(page)[0] == "down"  # worst first
    page.press("/")
    for key in "orders":
        page.press(key)
    wait_until(lambda: names(page) == ["echo"])
    page.press("Escape")
    wait_until(lambda: len(names(page)) == 4)
    page.run("document.querySelector('#filter').blur()")
    page.run("[...document.querySelectorAll('#states button')].find(b => b.textContent.startsWith('disabled')).focus()")
    page.press("Enter")
    wait_until(lambda: names(page) == ["page"])
    page.press("Escape")
    page.run("document.querySelector('#rows .name button').focus()")
    page.press("Enter")
    page.wait_for("Failed dials", "#rows")


@pytest.mark.parametrize(("size", "scheme"), VARIANTS)
def test_the_page_is_accessible_and_fits_the_screen(
    page: WebPage, agent: AgentProcess, size: tuple[int, int], scheme: str
) -> None:
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        page.wait_for("echo", "#sessions")
        page.look_like(*size, scheme=scheme)
        page.run("document.querySelector('#rows .name button').click()")
        assert violations(page) == []
        assert page.run("document.documentElement.scrollWidth") <= size[0]


def test_a_stopped_agent_is_reported_and_the_last_status_stays(agent: AgentProcess, page: WebPage) -> None:
    agent.signal(signal.SIGSTOP)
    try:
        page.wait_for("the agent does not answer", "#live")
        assert "echo" in names(page)
    finally:
        agent.signal(signal.SIGCONT)
    page.wait_for("live", "#live")
    page.complaints.clear()  # the browser's own, about timed-out requests


def test_the_page_without_scripts_is_a_table(agent: AgentProcess, tmp_path: Path) -> None:
    with WebPage(tmp_path, address(agent), scripts=False) as page:
        assert page.complaints == []
    shown = ask(int(address(agent).rstrip("/").rpartition(":")[2]), "/").text
    static = shown.partition('<div id="static">')[2].partition("</div>")[0]
    assert "<td>echo</td>" in static
    assert "503" in static or "<td>untried</td>" in static


def test_the_security_policy_forbids_foreign_content_and_framing(agent: AgentProcess) -> None:
    answer = ask(int(address(agent).rstrip("/").rpartition(":")[2]), "/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in answer.text
