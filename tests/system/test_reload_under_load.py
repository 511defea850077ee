"""A hundred reloads under load leave unchanged routes alone."""

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pomagent.admin.control.client import ask
from tests.gateway.facade import Gateway, destination
from tests.gateway.ports import unused_port
from tests.gateway.waiting import scaled, wait_until
from tests.support.agent.agent_process import AgentProcess, connect
from tests.support.agent.bastion import Bastion, listening_inode, on

RELOADS = 100
PUMPS = 20
NEW_PER_SECOND = 50
BLOCK = 32 * 1024
KEPT = ("echo", "public")


class Load:
    """Clients of the unchanged routes, with every byte compared."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports
        self._stop = threading.Event()
        self.failures: list[str] = []
        self.moved = 0
        self.connections = 0
        self._threads = [threading.Thread(target=self._guard, args=(self._pump, seed)) for seed in range(PUMPS)]
        self._threads.append(threading.Thread(target=self._guard, args=(self._knock, 0)))

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(scaled(60))
            assert not thread.is_alive()

    def _guard(self, run: Callable[[int], None], seed: int) -> None:
        try:
            run(seed)
        except Exception as error:  # noqa: BLE001 - reported by the test
            self.failures.append(f"{run.__name__} {seed}: {error!r}")

    def _pump(self, seed: int) -> None:
        """Keep one connection for the whole time and check the echoes."""
        source = random.Random(seed)
        with connect(self._ports[seed % len(self._ports)]) as client:
            while not self._stop.is_set():
                block = source.randbytes(BLOCK)
                client.sendall(block)
                back = b""
                while len(back) < BLOCK:
                    more = client.recv(BLOCK - len(back))
                    assert more, "the session ended"
                    back += more
                assert back == block, "bytes were changed"
                self.moved += BLOCK

    def _knock(self, _: int) -> None:
        """Open one connection after another, each with a request and its answer."""
        while not self._stop.wait(1 / NEW_PER_SECOND):
            with connect(self._ports[self.connections % len(self._ports)]) as client:
                question = b"%d\n" % self.connections
                client.sendall(question)
                assert client.makefile("rb").readline() == question
            self.connections += 1


class Edits:
    """A file of routes that change in every way beside routes that are kept."""

    def __init__(self, bastion: Bastion, kept: dict[str, int]) -> None:
        self._bastion = bastion
        self._kept = kept
        self._dice = random.Random(4711)
        self._free = [unused_port() for _ in range(6)]
        self._others: dict[str, dict[str, Any]] = {}
        self._credential = bastion.directory / "other-token"
        self.rotate()

    def one(self) -> bool:
        """Make one edit and return whether the file is valid afterwards."""
        ways = [self.add, self.remove, self.retarget, self.swap, self.rotate, self.spoil]
        return self._dice.choice(ways)() is not False

    def add(self) -> None:
        taken = {route["port"] for route in self._others.values()}
        free = [port for port in self._free if port not in taken]
        if free:
            name = f"other-{self._dice.randrange(10_000)}"
            self._others[name] = {"port": self._dice.choice(free), "to": "page"}
        self.save()

    def remove(self) -> None:
        if self._others:
            del self._others[self._dice.choice(list(self._others))]
        self.save()

    def retarget(self) -> None:
        for route in self._others.values():
            route["to"] = self._dice.choice(["page", "banner", "answer"])
        self.save()

    def swap(self) -> None:
        if len(self._others) >= 2:
            one, two = self._dice.sample(list(self._others.values()), 2)
            one["port"], two["port"] = two["port"], one["port"]
        self.save()

    def rotate(self) -> None:
        self._credential.touch(mode=0o600)
        self._credential.write_text(self._bastion.gateway.new_token())
        self.save()

    def spoil(self) -> bool:
        self._bastion.save_text("[[routes]]\nname = " + "x" * self._dice.randrange(50))
        return False

    def save(self) -> None:
        gateway = self._bastion.gateway
        text = '[status]\nlisten = ""\n[credentials.default]\nservice_account_file = "token"\n'
        text += '[credentials.other]\nservice_account_file = "other-token"\n'
        text += f'[gateways.edge]\nurl = "{gateway.url}"\nconnect_to = "{gateway.connect_to}"\n'
        text += f'ca_file = "{gateway.ca_file}"\n'
        for name, port in self._kept.items():
            text += _route(name, name, port, "default")
        for name, route in self._others.items():
            text += _route(name, route["to"], route["port"], "other")
        self._bastion.save_text(text)


def _route(name: str, to: str, port: int, credential: str) -> str:
    return (
        f'[[routes]]\nname = "{name}"\nfrom = "{destination(to)}"\nlisten = "{on(port)}"\n'
        f'gateway = "edge"\ncredential = "{credential}"\nwarm = "tunnel"\n'
    )


def _process(agent: AgentProcess) -> dict[str, int]:
    """Return the numbers of descriptors, without those of warm tunnels, and greenlets."""
    status = agent.status()
    warm: int = sum(route["warm"] for route in status["routes"])
    return {**status["process"], "descriptors": status["process"]["descriptors"] - warm}


@pytest.mark.timeout(600)
def test_hundred_reloads_under_load_leave_kept_routes_alone(bastion: Bastion, gateway: Gateway) -> None:
    kept = {name: unused_port() for name in KEPT}
    edits = Edits(bastion, kept)
    agent = bastion.resume()
    for name in KEPT:
        agent.wait_for("pool.filled", route=name)
    before = _process(agent)
    inodes = {port: listening_inode(port) for port in kept.values()}
    control = Path(agent.environment["POMAGENT_STATUS__CONTROL_SOCKET"])
    results = []
    with Load(list(kept.values())) as load:
        wait_until(lambda: load.connections > NEW_PER_SECOND / 2)
        for _ in range(RELOADS):
            is_valid = edits.one()
            outcome = ask(control, "POST", "/reload")
            results.append(outcome["result"])
            assert (outcome["result"] != "rejected") == is_valid, outcome
            time.sleep(0.05)  # spreads the reloads over the load
    assert load.failures == []
    assert results.count("applied") > RELOADS / 3
    assert results.count("rejected") > 5
    assert load.connections > NEW_PER_SECOND
    assert {port: listening_inode(port) for port in kept.values()} == inodes
    refused = [event for event in agent.events("session.refused") if event["route"] in KEPT]
    assert refused == []
    edits._others.clear()
    edits.save()
    ask(control, "POST", "/reload")
    wait_until(lambda: _process(agent) == before, 40, f"{before} again; it is {_process(agent)}")
