"""Commands that change sessions, routes and the log level of the real agent."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import scaled, wait_until
from tests.support.agent import processes
from tests.support.agent.agent_process import AgentProcess, clean_environment, connect, pomagent, read_to_end
from tests.support.agent.bastion import ANY, Bastion, on, say


def sessions(agent: AgentProcess, *routes: str) -> list[dict[str, object]]:
    done = agent.command("sessions", "--json", *routes)
    assert done.returncode == 0, done.stderr
    listed: list[dict[str, object]] = json.loads(done.stdout)["sessions"]
    return listed


def route(agent: AgentProcess, name: str) -> dict[str, object]:
    found: dict[str, object] = next(each for each in agent.status()["routes"] if each["name"] == name)
    return found


def is_reset(client: socket.socket) -> bool:
    try:
        client.recv(1)
    except ConnectionResetError:
        return True
    return False


def is_turned_away(port: int) -> bool:
    """At once: it may be reset before its connect() has returned."""
    try:
        with connect(port) as client:
            return is_reset(client)
    except ConnectionResetError:
        return True


# --- sessions -------------------------------------------------------------------------------------------------------


def test_sessions_lists_user_route_and_traffic(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY, "banner": ANY})
    with ExitStack() as stack:
        client = stack.enter_context(connect(agent.port("echo")))
        assert say(client) == b"hello\n"
        other = stack.enter_context(connect(agent.port("banner")))
        assert other.recv(3) == b"SSH"
        newest, oldest = sessions(agent)
        assert (newest["route"], oldest["route"]) == ("banner", "echo")
        assert oldest["peer"] == on(client.getsockname()[1])
        assert (oldest["uid"], oldest["bytes_up"], oldest["bytes_down"]) == (os.geteuid(), 6, 6)
        assert [each["route"] for each in sessions(agent, "banner")] == ["banner"]
        header, *rows = agent.command("sessions").stdout.splitlines()
        assert header.split()[:4] == ["SESSION", "ROUTE", "PEER", "USER"]
        assert rows[1].split()[:3] == [str(oldest["session"]), "echo", oldest["peer"]]
        assert rows[-1] == "2 sessions"


def test_without_sessions_there_is_no_table(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    assert agent.command("sessions").stdout == "0 sessions\n"


# --- close ----------------------------------------------------------------------------------------------------------


def test_close_ends_only_the_named_session(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    with connect(agent.port("echo")) as ended, connect(agent.port("echo")) as other:
        assert (say(ended), say(other)) == (b"hello\n", b"hello\n")
        peer = on(ended.getsockname()[1])
        (number,) = [each["session"] for each in sessions(agent) if each["peer"] == peer]
        done = agent.command("close", str(number))
        assert (done.returncode, done.stdout) == (0, "closed: 1 session\n"), done.stderr
        assert is_reset(ended)
        assert say(other) == b"hello\n"
        (left,) = sessions(agent)  # at once: the command returns when it is over
        assert left["session"] != number
    closed = agent.wait_for("session.closed", session=number)
    assert (closed["side"], closed["reason"]) == ("agent", "closed")
    changed = agent.wait_for("control.changed", command="close")
    assert (changed["uid"], changed["arguments"]) == (os.geteuid(), {"sessions": [number]})


def test_close_of_a_route_ends_all_its_sessions_and_waiting_clients(bastion: Bastion) -> None:
    agent = bastion.start(
        {"echo": ANY, "page": ANY}, defaults={"warm": "off", "wait_timeout_s": 600},
        **{"gateways.demo": {"tls_timeout_s": 600}},
    )  # fmt: skip
    with connect(agent.port("echo")) as served, connect(agent.port("page")) as other:
        assert say(served) == b"hello\n"
        agent.wait_for("session.opened", route="page")
        wait_until(lambda: all(each["waited_ms"] is not None for each in sessions(agent)), 20, "both have tunnels")
        bastion.gateway.edge.pause()
        with connect(agent.port("echo")) as waiting:
            wait_until(lambda: len(sessions(agent, "echo")) == 2, 20, "two sessions")
            outcome = json.loads(agent.command("close", "--route", "echo", "--json").stdout)
            assert len(outcome["closed"]) == 2
            assert is_reset(served)
            assert is_reset(waiting)
        assert [each["route"] for each in sessions(agent)] == ["page"]
        bastion.gateway.edge.resume()
        other.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert other.recv(4) == b"HTTP"
    assert agent.wait_for("session.refused")["reason"] == "closed"


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["999999"], 69, "no running session has the number 999999"),
        (["--route", "nowhere"], 69, "no running route is named nowhere"),
        ([], 2, "name either sessions"),
        (["1", "--route", "echo"], 2, "name either sessions"),
        (["x"], 2, "not a valid integer"),
    ],
)
def test_close_of_an_unknown_session_or_route_closes_nothing(
    bastion: Bastion, arguments: list[str], code: int, error: str
) -> None:
    agent = bastion.start({"echo": ANY})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        done = agent.command("close", *arguments)
        assert (done.returncode, error in done.stderr) == (code, True), done.stderr
        assert say(client) == b"hello\n"


# --- pause and resume -----------------------------------------------------------------------------------------------


def test_a_paused_route_rejects_new_clients_and_keeps_its_sessions(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY, "page": ANY}, defaults={"warm": "tunnel"})
    agent.wait_for("pool.filled", route="echo")
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        done = agent.command("pause", "echo")
        assert (done.returncode, done.stdout) == (0, "paused: echo, 1 session left\n"), done.stderr
        assert is_turned_away(agent.port("echo"))
        assert say(client) == b"hello\n"
    refused = agent.wait_for("session.refused", route="echo")
    assert (refused["reason"], refused["recovery"]) == ("paused", "operator")
    assert "pomagent resume echo" in refused["error"]
    paused = route(agent, "echo")
    assert (paused["state"], paused["is_ready"], paused["warm"]) == ("paused", False, 0)
    assert "pomagent resume echo" in str(paused["reason"])
    assert paused["traffic"]["refused"] == {"paused": 1}  # type: ignore[index]
    assert agent.command("pause", "echo").stdout == "already paused: echo, 0 sessions left\n"
    assert agent.command("resume", "echo").stdout == "resumed: echo\n"
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    assert agent.command("resume", "echo").stdout == "was not paused: echo\n"
    asked = [(event["command"], event["arguments"]) for event in agent.events("control.changed")]
    assert asked[0] == ("pause", {"routes": ["echo"]})
    assert [command for command, _ in asked] == ["pause", "pause", "resume", "resume"]


def test_a_reload_resumes_nothing(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "tunnel"})
    port = agent.port("echo")
    agent.command("pause", "echo")
    bastion.save({"echo": on(port)}, defaults={"warm": "tunnel", "pool_max": 7})
    agent.wait_for("config.applied")
    bastion.replace_token(bastion.gateway.new_token())
    agent.wait_for("config.applied", 2)
    assert is_turned_away(port)
    assert (route(agent, "echo")["state"], route(agent, "echo")["warm"]) == ("paused", 0)


def test_an_unknown_route_prevents_the_whole_pause(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    done = agent.command("pause", "echo", "nowhere")
    assert (done.returncode, "nowhere" in done.stderr) == (69, True)
    assert route(agent, "echo")["state"] != "paused"


def test_an_agent_with_a_paused_route_stops_normally(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    agent.command("pause", "echo")
    assert agent.stop() == 0


def test_every_key_that_a_command_prints_is_documented(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    text = (Path(__file__).parents[2] / "docs/commands-json.md").read_text()
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        for words in (
            ["close", "--route", "echo"], ["pause", "echo"], ["resume", "echo"], ["retry"], ["log-level"],
            ["log-level", "file"], ["reload"], ["check", "--diff"],
        ):  # fmt: skip
            done = agent.command(*words, "--json")
            assert done.returncode == 0, done.stderr
            assert [key for key in json.loads(done.stdout) if f"`{key}`" not in text] == [], words


# --- retry ----------------------------------------------------------------------------------------------------------


def test_retry_dials_failed_routes_and_rejects_unknown_names(bastion: Bastion) -> None:
    gateway, address = bastion.gateway, "mended.example.test:7200"
    with socket.socket() as closed:
        closed.bind((LOOPBACK, 0))
        gateway.add_route(address, closed.getsockname()[1])
        agent = bastion.start({address: ANY, "echo": ANY}, defaults={"warm": "tunnel"})
        name = address.replace(":", "-")
        agent.wait_for("breaker.opened", route=name)
        closed.listen()
        done = agent.command("retry", name)
        assert (done.returncode, done.stdout) == (0, "retried: 1 route\n"), done.stderr
        agent.wait_for("breaker.closed", route=name)
    gateway.remove_route(address)
    assert agent.command("retry").stdout == "retried: 2 routes\n"
    assert agent.wait_for("control.changed", 2, command="retry")["arguments"] == {"routes": []}
    refused = agent.command("retry", "nowhere")
    assert (refused.returncode, "no enabled route is named nowhere" in refused.stderr) == (69, True)


# --- the log's level ------------------------------------------------------------------------------------------------


def test_the_log_level_changes_at_once_and_a_reload_keeps_it(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    assert agent.command("log-level").stdout == "debug (agent.toml: debug)\n"
    assert agent.command("log-level", "warning").stdout == "warning (agent.toml: debug)\n"
    bastion.save({"echo": ANY}, defaults={"pool_max": 3})
    assert agent.command("reload").returncode == 0
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    wait_until(lambda: not sessions(agent), 20, "no session")
    assert not agent.events("config.applied")
    assert not agent.events("session.closed")
    assert agent.command("log-level", "file").stdout == "debug (agent.toml: debug)\n"
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    agent.wait_for("session.closed")


def test_a_temporary_log_level_expires(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    assert agent.command("log-level", "error", "--for", "0.5").returncode == 0
    wait_until(lambda: json.loads(agent.command("log-level", "--json").stdout)["level"] == "debug", 20, "debug")
    asked = agent.wait_for("control.changed", command="log-level")
    assert asked["arguments"] == {"for_s": 0.5, "level": "error"}


# --- wait -----------------------------------------------------------------------------------------------------------


def test_wait_returns_once_a_starting_agent_can_serve(bastion: Bastion) -> None:
    bastion.save({"echo": ANY}, defaults={"warm": "tunnel"})
    environment = {"POMAGENT_STATUS__CONTROL_SOCKET": str(bastion.directory / "control.sock")}
    with ThreadPoolExecutor(1) as pool:
        asked = ["wait", "--timeout", str(scaled(50)), "--config", str(bastion.path), "echo"]
        waiting = pool.submit(pomagent, *asked, **environment)
        agent = bastion.resume()
        done = waiting.result()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert route(agent, "echo")["is_ready"] is True


def test_wait_gives_up_with_what_is_missing(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY, "down": ANY}, defaults={"warm": "tunnel"})
    assert agent.command("wait", "echo", "--timeout", str(scaled(20))).returncode == 0
    assert agent.command("wait").returncode == 0  # the agent itself
    agent.wait_for("tunnel.failed", route="down")
    for arguments in (["down"], ["--all"], ["echo", "down"]):
        done = agent.command("wait", "--timeout", "0", *arguments)
        assert done.returncode == 69
        (line,) = done.stderr.splitlines()
        assert line.startswith("pomagent: down: down: ")
        assert "503" in line


def test_wait_for_an_unknown_route_fails_at_once(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    done = agent.command("wait", "--timeout", "600", "nowhere")
    assert (done.returncode, "no route is named nowhere" in done.stderr) == (2, True)


def test_wait_without_an_agent_reports_that_after_the_timeout(bastion: Bastion) -> None:
    socket_path = str(bastion.directory / "none.sock")
    done = pomagent("wait", "--timeout", "0", "--control-socket", socket_path)
    assert (done.returncode, "no agent answers" in done.stderr) == (69, True)


# --- status --watch -------------------------------------------------------------------------------------------------


HEARING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite that runs in the background has it ignored
from pomagent.__main__ import main
main()
"""


def watch(agent: AgentProcess, *arguments: str, **options: object) -> processes.Process:
    command = [sys.executable, "-c", HEARING, "status", "--watch", "--config", str(agent.settings), *arguments]
    return processes.Process(
        command, env=clean_environment(**agent.environment, TERM="xterm", COLUMNS="120", LINES="40"), **options
    )


def test_watch_in_a_pipe_prints_one_document_per_line(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    with watch(agent, "--json", stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE) as watching:
        first, second = (json.loads(watching.stdout.readline()) for _ in range(2))
        assert first["pid"] == second["pid"] == agent.pid
        assert second["uptime_s"] > first["uptime_s"]
        agent.stop()
        while "no agent answers" not in json.loads(watching.stdout.readline()).get("error", ""):
            pass
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=scaled(20))
    assert (watching.returncode, errors) == (0, "")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_watch_uses_the_whole_terminal_and_restores_it(bastion: Bastion, end: signal.Signals) -> None:
    agent = bastion.start({"echo": ANY, "down": ANY}, defaults={"warm": "tunnel"})
    agent.wait_for("breaker.opened", route="down")
    ours, theirs = pty.openpty()
    with watch(agent, stdin=theirs, stdout=theirs, stderr=theirs) as watching:
        os.close(theirs)
        seen = b""
        while b"echo.example.test:7000" not in seen:
            seen += os.read(ours, 65536)
        watching.send_signal(end)
        try:
            while more := os.read(ours, 65536):
                seen += more
        except OSError:  # Linux's way of saying that the other side is closed
            pass
    os.close(ours)
    assert watching.returncode == 0
    shown = seen.decode()
    assert "\x1b[?1049h" in shown  # the terminal's other screen, and back
    assert shown.rindex("\x1b[?1049l") > shown.rindex("echo.example.test:7000")
    assert shown.index("down: ") < shown.index("ROUTE")  # what is wrong comes first
    assert "Traceback" not in shown


def test_a_closed_session_resets_its_client(bastion: Bastion) -> None:
    """A truncated answer must not look complete."""
    agent = bastion.start({"download": ANY})
    with connect(agent.port("download")) as client:
        client.sendall(b"1 1000000000\n")
        assert client.recv(1)
        agent.command("close", "--route", "download")
        with pytest.raises(ConnectionResetError):
            read_to_end(client)
