"""Compares the agent with a model: after any edits it listens where the last valid file has routes."""

import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pomagent.admin.control.client import ask
from tests.gateway.facade import Gateway
from tests.gateway.ports import unused_port
from tests.support.agent.agent_process import connect
from tests.support.agent.bastion import Bastion, listening_inode, on, say

NAMES = ("one", "two", "three", "four")


@pytest.fixture(scope="module")
def ports() -> list[int]:
    return [unused_port() for _ in range(5)]


@pytest.fixture
def machine(gateway: Gateway, ports: list[int]) -> type[RuleBasedStateMachine]:
    class Machine(Model):
        the_gateway = gateway
        the_ports = ports

    return Machine


class Model(RuleBasedStateMachine):
    """``wanted`` are the routes of the file on disk, ``running`` those that the agent must serve."""

    the_gateway: Gateway
    the_ports: list[int]
    sessions: Bundle[socket.socket] = Bundle("sessions")

    @initialize()
    def start(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pomagent-model-"))
        self.bastion = Bastion(self.the_gateway, self.directory)
        self.wanted: dict[str, int] = {"one": self.the_ports[0]}
        self.disabled: set[str] = set()
        self.spoilt = ""
        self.open: dict[socket.socket, bool] = {}
        self.save()
        self.agent = self.bastion.resume()
        self.running = self.expected()
        self.inodes: dict[int, int] = {}

    def teardown(self) -> None:
        for client in self.open:
            client.close()
        try:
            self.bastion.stop()
        finally:
            self.bastion.kill()
            shutil.rmtree(self.directory)

    # --- what an operator does ------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), index=st.integers(0, 4))
    def edit(self, name: str, index: int) -> None:
        """Add a route or move an existing one."""
        if self.the_ports[index] not in [port for other, port in self.wanted.items() if other != name]:
            self.wanted[name] = self.the_ports[index]
        self.follow()

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        if len(self.wanted) > 1:
            self.wanted.pop(name, None)
        self.follow()

    @rule(name=st.sampled_from(NAMES))
    def toggle(self, name: str) -> None:
        self.disabled ^= {name}
        self.follow()

    @rule(names=st.lists(st.sampled_from(NAMES), min_size=2, max_size=2, unique=True))
    def swap(self, names: list[str]) -> None:
        one, two = names
        if one in self.wanted and two in self.wanted:
            self.wanted[one], self.wanted[two] = self.wanted[two], self.wanted[one]
        self.follow()

    @rule(text=st.sampled_from(["", "[[routes", "[agent]\nunknown = 1\n", "[[routes]]\nfrom = 7\n"]))
    def break_it(self, text: str) -> None:
        self.spoilt = text or " "
        self.follow()

    @rule()
    def rename_away(self) -> None:
        self.spoilt = "missing"
        self.follow()

    @precondition(lambda self: self.spoilt)
    @rule()
    def fix(self) -> None:
        self.spoilt = ""
        self.follow()

    @rule()
    def rotate(self) -> None:
        self.bastion.replace_token(self.the_gateway.new_token())
        self.reload()

    @rule()
    def hang_up(self) -> None:
        self.agent.signal(signal.SIGHUP)
        self.reload()

    # --- what applications do -------------------------------------------------------------------------------------

    @precondition(lambda self: self.running)
    @rule(target=sessions, data=st.data())
    def connect(self, data: st.DataObject) -> socket.socket:
        client = connect(data.draw(st.sampled_from(sorted(self.running.values()))))
        assert say(client) == b"hello\n"
        self.open[client] = True
        return client

    @rule(client=sessions)
    def talk(self, client: socket.socket) -> None:
        if self.open[client]:
            assert say(client, b"still here\n") == b"still here\n"

    @rule(client=sessions)
    def half_close(self, client: socket.socket) -> None:
        if self.open[client]:
            client.shutdown(socket.SHUT_WR)
            self.open[client] = False

    @rule(client=consumes(sessions))
    def close(self, client: socket.socket) -> None:
        client.close()
        del self.open[client]

    # --- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def it_listens_where_the_last_valid_file_says(self) -> None:
        listening = {port for port in self.the_ports if listening_inode(port)}
        assert listening == set(self.running.values())

    @invariant()
    def an_address_that_stays_keeps_its_socket(self) -> None:
        now = {port: listening_inode(port) for port in self.running.values()}
        assert {port: inode for port, inode in self.inodes.items() if port in now}.items() <= now.items()
        self.inodes = now

    # --- the file -------------------------------------------------------------------------------------------------

    def expected(self) -> dict[str, int]:
        return {name: port for name, port in self.wanted.items() if name not in self.disabled}

    def save(self) -> None:
        if self.spoilt == "missing":
            self.bastion.path.unlink(missing_ok=True)
            return
        if self.spoilt:
            self.bastion.save_text(self.spoilt)
            return
        gateway = self.the_gateway
        text = '[status]\nlisten = ""\n[drain]\ntimeout_s = 600\n'
        text += '[credentials.default]\nservice_account_file = "token"\n'
        text += f'[gateways.edge]\nurl = "{gateway.url}"\nconnect_to = "{gateway.connect_to}"\n'
        text += f'ca_file = "{gateway.ca_file}"\n'
        for name, port in self.wanted.items():
            text += f'[[routes]]\nname = "{name}"\nfrom = "echo.example.test:7000"\ngateway = "edge"\n'
            text += f'listen = "{on(port)}"\nenabled = {str(name not in self.disabled).lower()}\n'
        self.bastion.save_text(text)

    def follow(self) -> None:
        self.save()
        self.reload()

    def reload(self) -> dict[str, Any]:
        outcome = ask(Path(self.agent.environment["POMAGENT_STATUS__CONTROL_SOCKET"]), "POST", "/reload")
        assert (outcome["result"] == "rejected") == bool(self.spoilt), outcome
        if not self.spoilt:
            self.running = self.expected()
        return outcome


@pytest.mark.timeout(600)
def test_agent_follows_the_model(machine: type[RuleBasedStateMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=8, stateful_step_count=40, database=None, print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
