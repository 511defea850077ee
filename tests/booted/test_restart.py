"""Restarts under load, in every way in which one process of the agent follows another."""

from collections.abc import Callable

import pytest

from tests.booted.host import ECHO, UNIT, Host
from tests.gateway.waiting import wait_until
from tests.support.agent.agent_process import connect
from tests.support.agent.bastion import on, refuses, say
from tests.support.load.steady_load import Load

OTHER = 5432
Record = Callable[[str, object], None]


@pytest.mark.usefixtures("alone")
def test_restart_refuses_no_connection(host: Host, record_property: Record) -> None:
    host.start()
    before = host.main_pid
    with Load(ECHO) as load:
        host.systemctl("restart", UNIT)
        load.go_on()
    assert host.main_pid != before
    assert (load.refused, load.lost) == ([], [])
    record_property("restart, connections", load.count)
    record_property("restart, longest wait in ms", load.longest_wait_ms)


@pytest.mark.usefixtures("alone")
def test_killed_agent_is_restarted_without_refusing_connections(host: Host, record_property: Record) -> None:
    host.start()
    before = host.main_pid
    with Load(ECHO) as load:
        host.kill("KILL", before)
        wait_until(lambda: host.main_pid not in (0, before), 20, "another main process")
        load.go_on()
    assert load.refused == []
    record_property("kill -9, connections", load.count)
    record_property("kill -9, of these accepted and lost with the old process", len(load.lost))
    record_property("kill -9, longest wait in ms", load.longest_wait_ms)


def test_port_of_a_removed_route_refuses_although_its_socket_was_stored(host: Host) -> None:
    host.start({"echo": on(ECHO), "banner": on(OTHER)})
    host.systemctl("restart", UNIT)  # systemd stores both sockets now
    host.save({"echo": on(ECHO)})
    host.systemctl("reload", UNIT)
    assert refuses(OTHER)
    host.systemctl("restart", UNIT)
    assert refuses(OTHER)


def test_port_of_a_route_removed_while_the_agent_was_down_refuses(host: Host) -> None:
    host.start({"echo": on(ECHO), "banner": on(OTHER)})
    host.save({"echo": on(ECHO)})
    host.kill("KILL", host.main_pid)
    wait_until(lambda: refuses(OTHER), 20, "the port refuses")
    with connect(ECHO) as client:
        assert say(client) == b"hello\n"


def test_ports_refuse_after_a_stop(host: Host) -> None:
    host.start()
    host.systemctl("stop", UNIT)
    wait_until(lambda: refuses(ECHO), 20, "systemd has closed what it kept, which it does a moment after the job's end")
    host.systemctl("start", UNIT)
    with connect(ECHO) as client:
        assert say(client) == b"hello\n"
