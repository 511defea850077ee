"""The control socket of the real agent, and starts from the configuration accepted last."""

import json
import os
import shutil
import socket
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import wait_until
from tests.support.agent import processes
from tests.support.agent.agent_process import AgentProcess, clean_environment, connect, pomagent
from tests.support.agent.bastion import ANY, Bastion, listening_inode, on, say


def test_reload_returns_when_the_edit_is_applied(bastion: Bastion, unused_port: int) -> None:
    agent = bastion.start({"echo": ANY})
    bastion.save({"echo": ANY, "page": on(unused_port)})
    done = agent.command("reload")
    assert done.returncode == 0, done.stderr
    connect(unused_port).close()  # at once: it listened before the command returned
    lines = done.stdout.splitlines()
    assert "started: page" in lines or lines == ["unchanged"]  # then the watch had applied it before the command began


def test_reload_fails_with_every_problem_and_the_agent_goes_on(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    before = agent.status()
    bastion.save_text('[agent]\nmax_sessions = "many"\n[[routes]]\nfrom = "x"\n')
    done = agent.command("reload")
    assert done.returncode == 78
    assert "agent.max_sessions" in done.stderr
    assert ".from" in done.stderr
    assert ".listen" in done.stderr
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    after = agent.status()
    assert after["last_reload"]["result"] == "rejected"
    assert len(after["last_reload"]["problems"]) == 3
    assert (before["generation"], before["config"]) == (after["generation"], after["config"])


def test_reload_of_unchanged_files_reports_unchanged(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    done = agent.command("reload")
    assert (done.returncode, done.stdout) == (0, "unchanged\n")


def test_reload_finds_the_agent_even_if_the_file_is_broken(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    bastion.save_text("[[routes")
    done = agent.command("reload")
    assert done.returncode == 78
    assert "not valid TOML" in done.stderr


def test_status_reports_routes_generation_and_the_last_reload(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY, "down": ANY}, defaults={"warm": "tunnel"})
    agent.wait_for("pool.filled", route="echo")
    agent.wait_for("tunnel.failed", route="down")
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        status = agent.status()
    echo, down = status["routes"]
    assert (echo["name"], echo["state"], echo["sessions"]) == ("echo", "up", 1)
    assert echo["listen"] == on(agent.port("echo"))
    assert (down["state"], "503" in down["reason"]) == ("down", True)
    assert (status["pid"], status["generation"], status["last_reload"]) == (agent.pid, 1, None)
    table = agent.command("status").stdout
    assert "down.example.test:7000" in table
    assert down["reason"] in table


def test_check_diff_previews_what_a_reload_does_and_changes_nothing(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY, "page": ANY}, defaults={"warm": "off"})
    bastion.save({"echo": ANY, "banner": ANY}, defaults={"warm": "tls"})
    assert agent.wait_for("config.applied")  # the file was followed already: nothing is left to do
    assert agent.command("check", "--diff").stdout == "unchanged\n"


def test_check_diff_without_an_agent_compares_with_the_last_accepted_file(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY, "page": ANY}, defaults={"warm": "off"})
    agent.stop()
    bastion.save({"echo": ANY, "banner": ANY}, defaults={"warm": "tls"})
    done = agent.command("check", "--diff")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "would be started: banner" in lines
    assert "would be stopped: page" in lines
    assert "would be replaced: echo" in lines
    assert "new-sessions  routes.echo.warm: off → tls" in [line.strip() for line in lines]
    assert "no agent runs" in done.stderr


@pytest.mark.parametrize("command", [["reload"], ["check", "--diff"]])
def test_an_agent_on_another_file_is_not_reloaded(bastion: Bastion, command: list[str]) -> None:
    agent = bastion.start({"echo": ANY})
    other = bastion.directory / "other.toml"
    other.write_text(bastion.path.read_text().replace("listen", "lisen"))
    done = pomagent(*command, "--config", str(other), **agent.environment)
    assert done.returncode == (69 if command == ["reload"] else 78), done.stdout
    assert "unchanged" not in done.stdout
    assert str(other) in done.stderr
    if command == ["reload"]:
        assert str(bastion.path) in done.stderr
        assert not agent.events("control.changed")


@pytest.mark.parametrize("name", ["link.toml", "./agent.toml"])
def test_another_path_of_the_same_file_is_accepted(bastion: Bastion, name: str) -> None:
    agent = bastion.start({"echo": ANY})
    (bastion.directory / "link.toml").symlink_to(bastion.path)
    done = pomagent("reload", "--config", str(bastion.directory / name), **agent.environment)
    assert (done.returncode, done.stdout) == (0, "unchanged\n")


def test_the_socket_alone_names_the_agent(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    socket_path = agent.environment["POMAGENT_STATUS__CONTROL_SOCKET"]
    done = pomagent("reload", "--control-socket", socket_path, XDG_RUNTIME_DIR="")
    assert (done.returncode, done.stdout) == (0, "unchanged\n")


def test_an_unreadable_file_is_named_as_the_reason_for_an_unknown_socket(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('[status]\ncontrol_socket = "x.sock"\n[[routes')
    done = pomagent("status", "--config", str(tmp_path / "agent.toml"), XDG_RUNTIME_DIR=str(tmp_path))
    assert done.returncode == 69
    assert "cannot be read" in done.stderr
    assert "--control-socket" in done.stderr


def test_the_reload_event_counts_the_changes_by_how_they_are_applied(bastion: Bastion, unused_port: int) -> None:
    agent = bastion.start({"echo": ANY}, drain={"timeout_s": 10})
    bastion.save({"echo": on(unused_port)}, drain={"timeout_s": 20}, defaults={"pool_max": 2})
    applied = agent.wait_for("config.applied")
    assert (applied["live"], applied["new_sessions"], applied["rebind"]) == (1, 1, 1)


def test_the_socket_is_for_its_group_only_and_gone_afterwards(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    path = bastion.directory / "control.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    agent.stop()
    assert not path.exists()


def test_every_change_over_the_socket_is_logged_with_uid_and_pid(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    agent.command("reload")
    changed = agent.wait_for("control.changed")
    assert (changed["uid"], changed["command"]) == (os.geteuid(), "reload")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run commands as another user")
def test_another_user_is_refused_even_if_the_socket_mode_permits_it(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    with tempfile.TemporaryDirectory() as public:  # pytest's own directories are closed to others
        Path(public).chmod(0o755)
        socket_path = Path(public, "control.sock")
        os.link(bastion.directory / "control.sock", socket_path)
        socket_path.chmod(0o666)
        asked = processes.run(
            [_PYTHON_FOR_ALL, "-c", _ASK, str(socket_path)], user=65534, group=65534, extra_groups=[], check=True,
            capture_output=True, text=True, env=clean_environment(), cwd="/",
        )  # fmt: skip
    assert asked.stdout.split()[1] == "403"
    assert agent.wait_for("control.refused")["uid"] == 65534


# The interpreter of the tests may lie where other users cannot go.
_PYTHON_FOR_ALL = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable

_ASK = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(b"POST /reload HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
print(s.makefile().read())
"""


def test_a_command_without_an_agent_reports_that(tmp_path: Path) -> None:
    done = pomagent("status", "--control-socket", str(tmp_path / "none.sock"))
    assert done.returncode == 69
    assert "is it running" in done.stderr


def test_an_agent_starts_from_the_last_accepted_file_if_configured(bastion: Bastion, unused_port: int) -> None:
    agent = bastion.start({"echo": on(unused_port)}, agent={"boot_from_last_good": True})
    agent.stop()
    bastion.save_text("[[routes")
    again = bastion.resume()
    rejected = again.wait_for("config.rejected")
    assert "not valid TOML" in rejected["problems"][0]
    with connect(unused_port) as client:
        assert say(client) == b"hello\n"
    assert again.status()["last_reload"]["result"] == "rejected"
    bastion.save({"page": ANY})
    again.wait_for("config.applied", started=1, stopped=1)


def test_an_agent_does_not_start_from_the_last_accepted_file_by_default(bastion: Bastion) -> None:
    bastion.start({"echo": ANY}).stop()
    bastion.save_text("[[routes")
    done = pomagent("run", "--config", str(bastion.path), STATE_DIRECTORY=str(bastion.directory / "state"))
    assert done.returncode == 78


def test_included_files_are_kept_with_the_main_one(bastion: Bastion, unused_port: int) -> None:
    routes = bastion.directory / "routes.d"
    routes.mkdir()
    bastion.save({}, agent={"include": ["routes.d/*.toml"], "boot_from_last_good": True})
    more = (
        f'[[routes]]\nname = "echo"\nfrom = "echo.example.test:7000"\ngateway = "demo"\nlisten = "{on(unused_port)}"\n'
    )
    (routes / "more.toml").write_text(more)
    bastion.resume().stop()
    shutil.rmtree(routes)
    bastion.save_text("")
    again = bastion.resume()
    again.wait_for("listener.bound", route="echo", listen=on(unused_port))


def test_a_port_in_use_is_reported_with_line_and_owner(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "tunnel", "pool_max": 1})
    agent.wait_for("pool.filled")
    port = agent.port("echo")
    before, inode = _state(agent), listening_inode(port)
    with socket.socket() as taken:  # until the end: as soon as it is free, any look at the file would apply it
        taken.bind((LOOPBACK, 0))
        taken.listen()
        address = on(taken.getsockname()[1])
        with connect(port) as client:
            assert say(client) == b"hello\n"
            bastion.save({"echo": {"listen": ANY, "max_sessions": 7}, "page": address, "banner": ANY})
            (problem,) = json.loads(agent.command("reload", "--json").stdout)["problems"]
            assert say(client) == b"hello\n"
        line = bastion.path.read_text().splitlines().index(f'listen = "{address}"') + 1
        assert problem.startswith(f"{bastion.path}:{line}: routes.page.listen: cannot listen on {address}: ")
        assert f"(pid {os.getpid()})" in problem
        agent.wait_for("session.closed")
        wait_until(lambda: _state(agent) == before, what=f"{before} again")
        assert listening_inode(port) == inode
    assert agent.command("reload").returncode == 0
    assert [route["name"] for route in agent.status()["routes"]] == ["echo", "page", "banner"]


def _state(agent: AgentProcess) -> dict[str, object]:
    """What a refused reload leaves as it was; what a route keeps warm, and learns of its server, goes on."""
    status = agent.status()
    goes_on = {"pool", "protocol", "keeps_warm", "traffic"}
    routes = [{key: route[key] for key in route.keys() - goes_on} for route in status["routes"]]
    return {key: status[key] for key in ("generation", "config", "sessions", "credentials")} | {"routes": routes}


def test_a_change_of_a_description_leaves_the_warm_tunnels_alone(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "tunnel"})
    opened = agent.wait_for("tunnel.opened")
    bastion.save({"echo": ANY}, defaults={"warm": "tunnel", "description": "returns what it gets"})
    agent.command("reload")
    assert agent.wait_for("config.applied")["live"] == 1
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    assert agent.wait_for("session.closed")["request_id"] == opened["request_id"]
