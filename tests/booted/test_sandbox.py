"""What the hardening of the unit costs: nothing that the agent needs."""

import socket

import pytest

from tests.booted.host import ECHO, UNIT, Host
from tests.booted.package import ROOT
from tests.support.agent.agent_process import connect, read_to_end
from tests.support.agent.bastion import on, say

OTHER = 5432
PRIVILEGED = 389
ASK = """
import http.client
connection = http.client.HTTPConnection("127.0.0.1", 9765)
connection.request("GET", "/metrics")
print(connection.getresponse().status)
"""
SOCKET = "/run/pomagent/echo.sock"
SAY = f"""
import socket, sys
unix = sys.argv[1] == "unix"
connection = socket.socket(socket.AF_UNIX if unix else socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
connection.connect("{SOCKET}" if unix else (sys.argv[1], {OTHER}))
try:
    connection.sendall(b"hello")
    print(connection.recv(5).decode() or "refused")
except OSError:
    print("refused")
"""
EXPOSURE = 15
"""Tenths: what ``systemd-analyze security`` may say at most."""


def test_the_units_are_free_of_warnings(host: Host) -> None:
    host.machine.write("/etc/systemd/system/pomagent.socket", (ROOT / "systemd/pomagent.socket").read_text())
    for unit in (UNIT, "pomagent.socket"):
        done = host.machine.run("systemd-analyze", "verify", unit)
        assert (done.stdout, done.stderr) == ("", "")


def test_systemd_finds_little_that_an_attacker_could_use(host: Host) -> None:
    arguments = ("--offline=yes", f"--threshold={EXPOSURE}", UNIT)
    done = host.machine.run("systemd-analyze", "security", "--no-pager", *arguments, check=False)
    assert done.returncode == 0, done.stdout


def test_a_client_that_only_shuts_down_is_told_from_one_that_has_gone(host: Host) -> None:
    """Which takes sock_diag, over a netlink socket."""
    host.start({"answer": on(OTHER)})
    with connect(OTHER) as client:
        client.sendall(b"300 still here\n")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"still here\n"


def test_unix_listeners_stand_in_the_runtime_directory(host: Host) -> None:
    host.start({"echo": {"listen": "unix:/run/pomagent/echo.sock", "socket_mode": "0666"}})
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(host.machine.path("/run/pomagent/echo.sock")))
        assert say(client) == b"hello\n"


def test_a_command_may_mint_the_token(host: Host) -> None:
    script = "#!/bin/sh\nexec cat /etc/pomagent/token\n"
    host.machine.write("/usr/local/bin/mint-token", script, 0o755)
    command = {"service_account_file": None, "command": ["/usr/local/bin/mint-token"]}
    host.start(**{"credentials.default": command})
    with connect(ECHO) as client:
        assert say(client) == b"hello\n"


def test_the_token_may_be_a_credential_of_systemd(host: Host) -> None:
    host.drop_in("[Service]\nLoadCredential=bastion.jwt:/etc/pomagent/token\n")
    host.start(**{"credentials.default": {"service_account_file": None, "systemd_credential": "bastion.jwt"}})
    with connect(ECHO) as client:
        assert say(client) == b"hello\n"


@pytest.mark.parametrize(("user", "answer"), [("daemon", 403), ("nobody", 200)])
def test_the_status_server_knows_who_asks(host: Host, user: str, answer: int) -> None:
    """Which takes sock_diag, and all users of the host under their own numbers."""
    host.start(status={"allow_users": ["nobody"]})
    asked = host.machine.run("runuser", "-u", user, "--", "python3", "-c", ASK)
    assert asked.stdout == f"{answer}\n"


@pytest.mark.parametrize("socket_", ["127.0.0.1", "::1", "unix"])
def test_a_route_is_for_the_users_that_it_names(host: Host, socket_: str) -> None:
    address = {"127.0.0.1": on(OTHER), "::1": f"[::1]:{OTHER}", "unix": f"unix:{SOCKET}"}[socket_]
    host.start({"echo": {"listen": address, "allow_users": ["nobody"], "socket_mode": "0666"}})
    said = {
        user: host.machine.run("runuser", "-u", user, "--", "python3", "-c", SAY, socket_).stdout
        for user in ("nobody", "daemon")
    }
    assert said == {"nobody": "hello\n", "daemon": "refused\n"}
    assert host.wait_for("session.refused")["user"] == "daemon"


def test_systemd_may_listen_on_a_port_that_the_agent_may_not(host: Host) -> None:
    host.machine.write("/etc/systemd/system/pomagent.socket", (ROOT / "systemd/pomagent.socket").read_text())
    host.systemctl("daemon-reload")
    host.systemctl("enable", "--now", "pomagent.socket")
    host.start({"echo": on(PRIVILEGED)})
    with connect(PRIVILEGED) as client:
        assert say(client) == b"hello\n"
