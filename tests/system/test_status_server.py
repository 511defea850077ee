"""Health and metrics of the real agent."""

import json
import os
import shutil
import signal
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from pomagent.admin.status.server import MAX_CONNECTIONS
from tests.gateway.facade import Gateway
from tests.gateway.ports import LOOPBACK, unused_port
from tests.gateway.waiting import wait_until
from tests.support.agent import processes
from tests.support.agent.agent_process import AgentProcess, clean_environment, connect
from tests.support.agent.bastion import ANY, Bastion, on, say
from tests.support.inspection.scrape import Answer, ask

STATUS = {"listen": ANY}
PYTHON_FOR_ALL = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable


def port_of(agent: AgentProcess) -> int:
    """Return the port of the status server."""
    agent.wait_for("listener.bound", serves="status")
    return int(agent.events("listener.bound", serves="status")[-1]["listen"].rpartition(":")[2])


def metrics(agent: AgentProcess) -> Answer:
    answer = ask(port_of(agent), "/metrics")
    assert answer.status == 200, answer.text
    return answer


def accepted_by_promtool(text: str) -> str:
    """Return the complaints of promtool, empty if there are none."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = processes.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True)
    return f"{done.stdout}{done.stderr}" if done.returncode or done.stderr else ""


# Metrics.


def test_promtool_accepts_the_metrics(bastion: Bastion) -> None:
    bastion.replace_token(bastion.gateway.new_token(expires_in_s=1800))
    agent = bastion.start({"echo": ANY, "down": ANY}, status=STATUS)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    with pytest.raises(ConnectionResetError), connect(agent.port("down")) as client:
        client.recv(1)
    agent.wait_for("session.closed")
    answer = metrics(agent)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert accepted_by_promtool(answer.text) == ""


def test_sessions_are_counted_by_how_they_ended(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY, "down": ANY}, status=STATUS)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        running = metrics(agent)
        assert running.value("pomagent_sessions_active", route="echo") == 1
        assert running.value("pomagent_session_bytes_total", route="echo", direction="up") == 6
        assert running.value("pomagent_sessions_total", route="echo", side="client", reason="finished") is None
    with pytest.raises(ConnectionResetError), connect(agent.port("down")) as client:
        client.recv(1)
    agent.wait_for("session.closed")
    agent.wait_for("session.refused")
    wait_until(lambda: metrics(agent).value("pomagent_sessions_active", route="echo") == 0)
    over = metrics(agent)
    assert over.value("pomagent_sessions_total", route="echo", side="client", reason="finished") == 1
    assert over.value("pomagent_session_bytes_total", route="echo", direction="down") == 6
    assert over.value("pomagent_sessions_refused_total", route="down", reason="retry") == 1
    assert over.value("pomagent_route_state", route="down", state="down") == 1
    assert over.value("pomagent_route_ready", route="down") == 0
    failures = over.value("pomagent_tunnel_failures_total", route="down", error="destination_down")
    assert failures is not None
    assert failures >= 1
    served = [over.value("pomagent_pool_takes_total", route="echo", kind=kind) for kind in ("tunnel", "tls", "cold")]
    assert sum(count or 0 for count in served) == 1


def test_pools_configuration_and_process_are_measured(bastion: Bastion) -> None:
    agent = bastion.start({"echo": {"listen": ANY, "warm": "tunnel"}}, status=STATUS)
    agent.wait_for("pool.filled")
    before = metrics(agent)
    assert before.value("pomagent_pool_warm", route="echo") == before.value("pomagent_pool_target", route="echo") == 1
    assert before.value("pomagent_pool_waiting", route="echo") == 0
    assert before.value("pomagent_config_generation") == 1
    assert before.value("pomagent_config_last_reload_successful") == 1
    assert (before.value("process_open_fds") or 0) > 10
    bastion.save_text("[[routes]\n")
    agent.wait_for("config.rejected")
    rejected = metrics(agent)
    assert rejected.value("pomagent_config_last_reload_successful") == 0
    assert rejected.value("pomagent_config_reloads_total", result="rejected") == 1
    bastion.save({"echo": {"listen": ANY, "warm": "tls"}}, status=STATUS)
    agent.wait_for("config.applied")
    wait_until(lambda: metrics(agent).value("pomagent_config_generation") == 2)
    assert metrics(agent).value("pomagent_config_last_reload_successful") == 1
    assert metrics(agent).value("pomagent_sessions_active", route="echo") == 0


def test_the_expiry_of_a_token_is_a_metric(bastion: Bastion, gateway: Gateway) -> None:
    bastion.replace_token(gateway.new_token(expires_in_s=1800))
    agent = bastion.start({"echo": ANY}, status=STATUS)
    ends = metrics(agent).value("pomagent_credential_expiry_timestamp_seconds", credential="default")
    assert ends is not None
    assert 0 < ends - time.time() <= 1800
    assert metrics(agent).value("pomagent_credential_available", credential="default") == 1
    bastion.replace_token(gateway.new_token())
    agent.wait_for("config.applied")
    assert metrics(agent).value("pomagent_credential_expiry_timestamp_seconds", credential="default") is None


# Health.


def test_health_reports_ready_and_failing_routes(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY, "down": ANY}, defaults={"warm": "tunnel"}, status=STATUS)
    agent.wait_for("pool.filled", route="echo")
    agent.wait_for("tunnel.failed", route="down")
    port = port_of(agent)
    for target in ("/livez", "/startupz", "/readyz", "/readyz?require=any", "/readyz?require=echo"):
        assert (ask(port, target).status, ask(port, target).text) == (200, "ok\n"), target
    assert (ask(port, "/readyz/echo").status, ask(port, "/readyz/echo").text) == (200, "up\n")
    for target in ("/readyz?require=all", "/readyz?require=echo,down", "/readyz/down"):
        answer = ask(port, target)
        assert answer.status == 503, target
        assert "down: " in answer.text
        assert "start it, or mend" in answer.text
    assert ask(port, "/readyz/nothing").status == 404


def test_a_draining_agent_is_alive_but_not_ready(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, status=STATUS)
    port = port_of(agent)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        agent.signal(signal.SIGTERM)
        agent.wait_for("agent.draining")
        assert (ask(port, "/readyz").status, ask(port, "/livez").status) == (503, 200)
        assert ask(port, "/readyz/echo").status == 503
        assert metrics(agent).value("pomagent_draining") == 1
        assert say(client) == b"hello\n"
    assert agent.stop() == 0


def test_an_agent_with_a_quarantined_route_has_started_and_names_it(bastion: Bastion) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        agent = bastion.start({"echo": ANY, "page": on(taken.getsockname()[1])}, status=STATUS)
        port = port_of(agent)
        assert (ask(port, "/startupz").status, ask(port, "/readyz").status) == (200, 200)
        answer = ask(port, "/readyz/page")
        assert (answer.status, answer.text.startswith("quarantined: cannot listen on ")) == (503, True)


# The listen address.


def test_a_status_address_in_use_at_start_affects_no_session(bastion: Bastion) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        agent = bastion.start({"echo": ANY}, status={"listen": on(taken.getsockname()[1])})
        failed = agent.wait_for("listener.bind_failed", serves="status")
        assert (failed["level"], failed["listen"]) == ("error", on(taken.getsockname()[1]))
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"


def test_a_reload_moves_and_disables_the_server_and_rejects_an_address_in_use(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, status=STATUS)
    old, new = port_of(agent), unused_port()
    bastion.save({"echo": ANY}, status={"listen": on(new)})
    assert agent.wait_for("config.applied")["rebind"] == 1
    assert ask(new, "/livez").status == 200
    with pytest.raises(ConnectionRefusedError):
        ask(old, "/livez")
    with socket.create_server((LOOPBACK, 0)) as taken:
        bastion.save({"echo": ANY, "page": ANY}, status={"listen": on(taken.getsockname()[1])})
        (problem,) = agent.wait_for("config.rejected")["problems"]
    assert "status.listen: cannot listen on" in problem
    assert ask(new, "/livez").status == 200
    assert not agent.events("listener.bound", route="page")
    bastion.save({"echo": ANY}, status={"listen": ""})
    agent.wait_for("config.applied", count=2)
    with pytest.raises(ConnectionRefusedError):
        ask(new, "/livez")


# Access.

ASK = """
import http.client, sys
for target in sys.argv[2:]:
    asked = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
    asked.request("GET", target)
    print(asked.getresponse().status)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can send requests as another user")
@pytest.mark.parametrize(
    ("users", "statuses"), [([4711], ["200", "200"]), ([4712], ["403", "200"]), ([], ["200", "200"])]
)
def test_users_not_in_allow_users_see_only_health(bastion: Bastion, users: list[int], statuses: list[str]) -> None:
    agent = bastion.start({"echo": ANY}, status={**STATUS, "allow_users": users})
    asked = processes.run(
        [PYTHON_FOR_ALL, "-c", ASK, str(port_of(agent)), "/metrics", "/livez"], user=4711, group=4711, extra_groups=[],
        check=True, capture_output=True, text=True, env=clean_environment(), cwd="/",
    )  # fmt: skip
    assert asked.stdout.split() == statuses
    assert bool(agent.events("status.refused")) is (statuses[0] == "403")


def test_stalled_scrapers_affect_no_session(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, status=STATUS)
    port = port_of(agent)
    before = metrics(agent).value("process_open_fds") or 0
    with ExitStack() as stack:
        for _ in range(100):
            hanging = stack.enter_context(socket.create_connection((LOOPBACK, port), 20))
            hanging.sendall(b"GET /metrics HTTP/1.1\r\nHost: loc")
        client = stack.enter_context(connect(agent.port("echo")))
        assert say(client) == b"hello\n"
        assert metrics(agent).value("pomagent_sessions_active", route="echo") == 1
        assert (metrics(agent).value("process_open_fds") or 0) < before + MAX_CONNECTIONS + 10
    assert all(line.startswith("{") for line in agent.log.splitlines())


# The documents.


def keys_of(document: object) -> set[str]:
    """Return all keys except those that are data, such as route names, reasons and event fields."""
    if isinstance(document, list):
        return set().union(*map(keys_of, document))
    if not isinstance(document, dict):
        return set()
    inner = (value for key, value in document.items() if key not in COUNTERS)
    return set(document).union(*map(keys_of, inner))


COUNTERS = {"refused", "warm", "dialling", "takes", "refusals", "discards", "failures", "fields"}
DOCUMENTED = Path(__file__).parents[2] / "docs/status-json.md"


def test_the_page_and_the_command_show_the_same_document_with_every_key_documented(bastion: Bastion) -> None:
    agent = bastion.start(
        {"echo": {"listen": ANY, "tags": ["prod"]}, "down": ANY, "page": {"listen": ANY, "enabled": False}},
        status=STATUS,
    )
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        with pytest.raises(ConnectionResetError), connect(agent.port("down")) as refused:
            refused.recv(1)
        answer = ask(port_of(agent), "/status.json")
        sessions = json.loads(ask(port_of(agent), "/sessions.json").text)
        none = json.loads(ask(port_of(agent), "/sessions.json?limit=0").text)
    page, command = json.loads(answer.text), agent.status()
    assert answer.headers["content-type"] == "application/json"
    assert keys_of(page) == keys_of(command)
    assert (page["generation"], page["routes"][0]["tags"]) == (command["generation"], ["prod"])
    assert page["routes"][0]["traffic"]["bytes_up"] == 6
    assert any(event["event"] == "tunnel.failed" for event in page["events"])
    (session,) = sessions["sessions"]
    assert (session["route"], session["uid"], session["bytes_down"]) == ("echo", os.geteuid(), 6)
    assert none == {"total": 1, "old_processes": [], "sessions": []}
    text = DOCUMENTED.read_text()
    assert [key for key in sorted(keys_of(page) | keys_of(sessions)) if f"`{key}`" not in text] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can send requests as another user")
def test_only_named_users_see_the_documents(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, status={**STATUS, "allow_users": [4712]})
    asked = processes.run(
        [PYTHON_FOR_ALL, "-c", ASK, str(port_of(agent)), "/status.json", "/sessions.json", "/readyz/echo"],
        user=4711, group=4711, extra_groups=[], check=True, capture_output=True, text=True, env=clean_environment(),
        cwd="/",
    )  # fmt: skip
    assert asked.stdout.split()[:2] == ["403", "403"]
    assert asked.stdout.split()[2] in ("200", "503")
