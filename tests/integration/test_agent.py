"""The agent as a whole, where its process would be too coarse: what an apply leaves behind that is broken off."""

import socket
from collections.abc import Iterator
from dataclasses import replace

import gevent
import pytest

from pomagent.agent import Agent
from pomagent.log import LogLevel
from pomagent.settings import HostPort, Route, Settings
from tests.fakes.gateway import FakeGateway
from tests.fakes.log import FakeLog
from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import wait_until


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


def test_a_stop_in_the_middle_of_a_reload_waits_for_the_sessions_of_removed_routes(
    fake: FakeGateway, agent: Agent
) -> None:
    agent.apply(settings(fake, "one", "two", "three"))
    address = agent.listen_address("one")
    assert isinstance(address, HostPort)
    with socket.create_connection((address.host, address.port)):
        wait_until(lambda: agent.sessions == 1)
        reload = gevent.Greenlet.spawn(agent.apply, settings(fake, "three"))
        while agent.generation == 1:
            gevent.sleep(0)
        reload.kill()  # as a signal does, when the first listener is closed and the second one is not
        assert isinstance(reload.value, gevent.GreenletExit)
        assert agent.sessions == 1
        agent.stop_accepting()
        assert agent.finish(0) == 1
