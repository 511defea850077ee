"""The hardening of the unit forbids nothing that the agent needs."""

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
"""Maximum exposure in tenths, as ``systemd-analyze security`` rates it."""


def test_units_are_free_of_warnings(host: Host) -> None:
    host.machine.write("/etc/systemd/system/pomagent.socket", (ROOT / "systemd/pomagent.socket").read_text())
    for unit in (UNIT, "pomagent.socket"):
        done = host.machine.run("systemd-analyze", "verify", unit)
        assert (done.stdout, done.stderr) == ("", "")


def test_systemd_rates_the_exposure_below_the_limit(host: Host) -> None:
    arguments = ("--offline=yes", f"--threshold={EXPOSURE}", UNIT)
    done = host.machine.run("systemd-analyze", "security", "--no-pager", *arguments, check=False)
    assert done.returncode == 0, done.stdout


def test_half_closed_client_is_distinguished_from_a_closed_one(host: Host) -> None:
    """This needs sock_diag, over a netlink socket."""
    host.start({"answer": on(OTHER)})
    with connect(OTHER) as client:
        client.sendall(b"300 still here\n")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"still here\n"


def test_unix_listener_opens_in_the_runtime_directory(host: Host) -> None:
    host.start({"echo": {"listen": "unix:/run/pomagent/echo.sock", "socket_mode": "0666"}})
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(host.machine.path("/run/pomagent/echo.sock")))
        assert say(client) == b"hello\n"


def test_command_mints_the_token(host: Host) -> None:
    script = "#!/bin/sh\nexec cat /etc/pomagent/token\n"
    host.machine.write("/usr/local/bin/mint-token", script, 0o755)
    command = {"service_account_file": None, "command": ["/usr/local/bin/mint-token"]}
    host.start(**{"credentials.default": command})
    with connect(ECHO) as client:
        assert say(client) == b"hello\n"


def test_token_is_read_from_a_systemd_credential(host: Host) -> None:
    host.drop_in("[Service]\nLoadCredential=bastion.jwt:/etc/pomagent/token\n")
    host.start(**{"credentials.default": {"service_account_file": None, "systemd_credential": "bastion.jwt"}})
    with connect(ECHO) as client:
        assert say(client) == b"hello\n"


@pytest.mark.parametrize(("user", "answer"), [("daemon", 403), ("nobody", 200)])
def test_status_server_identifies_the_requesting_user(host: Host, user: str, answer: int) -> None:
    """This needs sock_diag, and user IDs that are not remapped."""
    host.start(status={"allow_users": ["nobody"]})
    asked = host.machine.run("runuser", "-u", user, "--", "python3", "-c", ASK)
    assert asked.stdout == f"{answer}\n"


@pytest.mark.parametrize("socket_", ["127.0.0.1", "::1", "unix"])
def test_route_admits_only_the_users_that_it_names(host: Host, socket_: str) -> None:
    address = {"127.0.0.1": on(OTHER), "::1": f"[::1]:{OTHER}", "unix": f"unix:{SOCKET}"}[socket_]
    host.start({"echo": {"listen": address, "allow_users": ["nobody"], "socket_mode": "0666"}})
    answers = {
        user: host.machine.run("runuser", "-u", user, "--", "python3", "-c", SAY, socket_).stdout
        for user in ("nobody", "daemon")
    }
    assert answers == {"nobody": "hello\n", "daemon": "refused\n"}
    assert host.wait_for("session.refused")["user"] == "daemon"


def test_socket_unit_listens_on_a_privileged_port(host: Host) -> None:
    host.machine.write("/etc/systemd/system/pomagent.socket", (ROOT / "systemd/pomagent.socket").read_text())
    host.systemctl("daemon-reload")
    host.systemctl("enable", "--now", "pomagent.socket")
    host.start({"echo": on(PRIVILEGED)})
    with connect(PRIVILEGED) as client:
        assert say(client) == b"hello\n"
