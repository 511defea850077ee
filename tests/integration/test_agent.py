"""The agent without its process: what an interrupted ``apply`` leaves behind."""

import gc
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gevent
import gevent.socket
import pytest

from pomagent.agent import Agent
from pomagent.config.load import load
from pomagent.log.logger import LogLevel
from pomagent.reload.plan import diff
from pomagent.sessions.client import LocalClient
from pomagent.settings import HostPort, Route, Settings
from tests.fakes.gateway import FakeGateway
from tests.fakes.greenlets import caught_crashes
from tests.fakes.log import FakeLog
from tests.gateway import minted
from tests.gateway.agent_toml import write_agent_toml
from tests.gateway.facade import Gateway
from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import wait_until
from tests.support.agent.bastion import ANY
from tests.support.inspection.leaks import running_greenlets


@pytest.fixture
def agent(no_leaks: None) -> Iterator[Agent]:
    made = Agent(FakeLog().log, LogLevel("debug"), lambda _: None)  # type: ignore[arg-type,return-value]
    yield made
    made.stop_accepting()
    made.finish(0)


def settings(fake: FakeGateway, *names: str) -> Settings:
    routes: list[Route] = [
        replace(fake.route(warm="off"), name=name, listen=HostPort(LOOPBACK, 0), credential=None) for name in names
    ]
    return Settings(fake.route().gateway.trust.ca_file, routes=tuple(routes))  # type: ignore[arg-type]


def apply(agent: Agent, new: Settings, running: Settings | None = None) -> None:
    agent.apply(new, diff(running, new))


def test_stop_in_the_middle_of_a_reload_waits_for_the_sessions_of_removed_routes(
    fake: FakeGateway, agent: Agent
) -> None:
    apply(agent, settings(fake, "one", "two", "three"))
    address = agent.listen_address("one")
    assert isinstance(address, HostPort)
    with socket.create_connection((address.host, address.port)):
        wait_until(lambda: agent.session_count == 1)
        reload = gevent.Greenlet.spawn(apply, agent, settings(fake, "three"), settings(fake, "one", "two", "three"))
        while agent.generation == 1:
            gevent.sleep(0)
        reload.kill()  # as a signal does, after the first listener was closed and before the second
        assert isinstance(reload.value, gevent.GreenletExit)
        assert agent.session_count == 1
        agent.stop_accepting()
        assert agent.finish(0) == 1


def test_reload_after_one_that_crashed_half_way_leaves_the_routes_of_its_file_only(
    fake: FakeGateway, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (settings(fake, *names) for names in (("one", "two"), ("two", "three"), ("one", "four")))
    apply(agent, first)
    with monkeypatch.context() as broken:
        broken.setattr("pomagent.listeners.listeners.Listeners.close_unused", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            apply(agent, second, first)
    apply(agent, third, first)
    assert sorted(forwarder.route.name for forwarder in agent.running.current) == ["four", "one"]
    wait_until(lambda: len(agent.forwarders()) == 2)
    for name in ("one", "four"):
        address = agent.listen_address(name)
        assert isinstance(address, HostPort)
        socket.create_connection((address.host, address.port)).close()


def test_reload_after_one_that_crashed_before_it_changed_anything_binds_the_same_address(
    fake: FakeGateway, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = settings(fake, "one")
    apply(agent, first)
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    second = replace(
        first, routes=(*first.routes, replace(first.routes[0], name="two", listen=HostPort(LOOPBACK, port)))
    )
    with monkeypatch.context() as broken:
        broken.setattr("pomagent.gateway.gateways.Gateways.adopt", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            apply(agent, second, first)
    apply(agent, second, first)
    assert agent.listen_address("two") == HostPort(LOOPBACK, port)


def test_crash_of_the_only_session_is_reported_as_a_bug(
    fake: FakeGateway, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pomagent.sessions.session.Session._admit", lambda _: 1 // 0)
    ours, theirs = socket.socketpair()
    with theirs, caught_crashes() as crashes:
        assert "a bug ended the session; please report it" in agent.serve_once(
            settings(fake, "only"), LocalClient(ours, None)
        )
    assert [type(crash) for crash in crashes] == [ZeroDivisionError]


def test_no_object_of_a_running_agent_shows_a_token(gateway: Gateway, tmp_path: Path) -> None:
    """Neither ``repr`` nor ``str`` of any object may contain one, because each may reach a log or a traceback."""
    before = running_greenlets()
    agent = Agent(FakeLog().log, LogLevel("debug"), lambda _: None)  # type: ignore[arg-type,return-value]
    apply(agent, load(write_agent_toml(tmp_path, gateway, {"echo": ANY, "noconnect": ANY}), {}))
    address = agent.listen_address("echo")
    assert isinstance(address, HostPort)
    with gevent.socket.create_connection((address.host, address.port)) as client:
        client.sendall(b"hello\n")
        assert client.recv(6) == b"hello\n"
        ours = [item for item in gc.get_objects() if str(type(item).__module__).startswith("pomagent.")]
        assert {"Credential", "Token", "Presented", "Session"} <= {type(item).__name__ for item in ours}
        assert [type(item).__name__ for item in ours if minted.is_in(f"{item!r} {item!s}")] == []
    agent.stop_accepting()
    agent.finish(0)
    wait_until(lambda: running_greenlets() == before)
