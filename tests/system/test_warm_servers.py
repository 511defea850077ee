"""What a pool costs servers that limit connections without a login in number and time.

Timeouts of the servers and ages of warm tunnels are a tenth of their defaults or less.
"""

import re
from collections.abc import Iterator

import pytest

from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import wait_until
from tests.servers import mariadb, openssh, postgres
from tests.servers.mariadb import Mariadb
from tests.servers.openssh import SshServer
from tests.servers.postgres import Postgres
from tests.servers.programs import program, run
from tests.servers.redis import redis
from tests.support.agent.agent_process import AgentProcess
from tests.support.agent.bastion import ANY, Bastion

DEPTH = 32
CYCLES = 200
"""Tunnels that were opened, kept warm, and replaced unused."""
TIMEOUT_S = 60
BLOCK_AFTER = 10
"""Consecutive errors of one host before MariaDB blocks it, 100 by default."""
ODD = 7777
"""A port without a preset, so that the agent has to classify the server."""


def deep(**keys: object) -> dict[str, object]:
    """Return a route that replaces its whole pool every second."""
    return {"listen": ANY, "pool_min": DEPTH, "pool_max": DEPTH, "pool_max_age_s": 1, **keys}


def name(address: str) -> str:
    return address.replace(":", "-")


def wait_for_cycles(agent: AgentProcess, count: int = CYCLES) -> None:
    agent.wait_for("tunnel.closed", reason="expired", count=count, timeout_s=TIMEOUT_S)


# MariaDB counts connections without a login and then blocks their host, which is the gateway.


@pytest.fixture(scope="module")
def running_mariadb() -> Iterator[Mariadb]:
    with mariadb.mariadb() as server:
        yield server


@pytest.fixture
def database(running_mariadb: Mariadb) -> Mariadb:
    running_mariadb.forgive()
    running_mariadb.block_after(BLOCK_AFTER)
    return running_mariadb


def mysql_logs_in(agent: AgentProcess, route: str) -> None:
    target = ("--protocol=tcp", f"--host={LOOPBACK}", f"--port={agent.port(route)}", f"--user={mariadb.USER}")
    query = ("--batch", "--skip-column-names", "--execute=SELECT 6 * 7")
    assert run(program("mariadb"), "--no-defaults", *target, *query) == b"42\n"


@pytest.mark.parametrize(("port", "errors"), [(3306, 0), (ODD, 1)])
def test_mariadb_counts_only_the_tunnel_that_classifies_it(
    bastion: Bastion, database: Mariadb, port: int, errors: int
) -> None:
    before = database.aborted_connects
    with bastion.gateway.route(f"mysql.example.test:{port}", database.port, source=mariadb.GUEST) as address:
        agent = bastion.start({address: deep()})
        wait_for_cycles(agent)
        assert database.aborted_connects - before <= errors
        assert database.guest_errors <= errors
        mysql_logs_in(agent, name(address))


@pytest.mark.parametrize(("depth", "patience"), [(1, 10), (3, 10), (32, 100)])
def test_route_forced_to_whole_tunnels_is_demoted_before_mariadb_blocks_the_gateway(
    bastion: Bastion, database: Mariadb, depth: int, patience: int
) -> None:
    database.block_after(patience)
    with bastion.gateway.route("mysql.example.test:3306", database.port, source=mariadb.GUEST) as address:
        agent = bastion.start({address: {"listen": ANY, "warm": "tunnel", "pool_min": depth, "pool_max": depth}})
        agent.wait_for("route.demoted", route=name(address), timeout_s=TIMEOUT_S)
        agent.wait_for("tunnel.closed", reason="peer_closed")
        wait_until(lambda: bastion.gateway.edge.open_tunnels == 0, TIMEOUT_S)  # the open tunnels have ended too
        counted = database.guest_errors
        assert 0 < counted < patience
        wait_until(lambda: agent.status()["routes"][0]["warm"] == depth)
        assert database.guest_errors == counted
        mysql_logs_in(agent, name(address))


def test_mariadb_blocks_a_gateway_that_never_logs_in(bastion: Bastion, database: Mariadb) -> None:
    """This proves that the server of these tests counts."""
    with bastion.gateway.route("mysql.example.test:3306", database.port, source=mariadb.GUEST) as address:
        for _ in range(BLOCK_AFTER):
            with bastion.gateway.connect(address) as tunnel:
                assert b"MariaDB" in tunnel.receive(40)
        wait_until(lambda: database.guest_errors == BLOCK_AFTER)
        with bastion.gateway.connect(address) as tunnel:
            assert b"blocked because of many connection errors" in tunnel.receive(100)


# OpenSSH limits unfinished logins (MaxStartups), and from 9.8 on penalizes their source.


SSH_TROUBLE = re.compile(r"MaxStartups|penalt|drop connection|Timeout before authentication|PerSource", re.IGNORECASE)


@pytest.fixture
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    settings = {"LogLevel": "VERBOSE", "MaxStartups": "3:100:4", "LoginGraceTime": 2}
    with openssh.openssh(tmp_path_factory.mktemp("sshd"), **settings) as server:
        wait_until(lambda: "Connection closed" in server.log)  # the connection that checked whether sshd listens
        yield server


@pytest.mark.parametrize(("port", "logins"), [(22, 1), (ODD, 2)])
def test_openssh_logs_no_complaint_and_sees_only_served_clients(
    bastion: Bastion, ssh_server: SshServer, port: int, logins: int
) -> None:
    before = ssh_server.log.count("Connection from")
    with bastion.gateway.route(f"ssh.example.test:{port}", ssh_server.port) as address:
        agent = bastion.start({address: deep()})
        wait_for_cycles(agent)
        target = ("-p", str(agent.port(name(address))), LOOPBACK)
        assert run(program("ssh"), *ssh_server.client_options, *target, "echo it works") == b"it works\n"
    assert not SSH_TROUBLE.search(ssh_server.log), ssh_server.log
    assert 1 <= ssh_server.log.count("Connection from") - before <= logins, ssh_server.log


# PostgreSQL ends connections that have not logged in after authentication_timeout.


PATIENCE_S = 4
GAVE_UP = re.compile(r"canceling authentication due to timeout|server process \(PID \d+\) exited with exit code 1")
"""Log level: PostgreSQL logs silent connections only at its debug levels."""
LEFT = re.compile(r"server process \(PID \d+\) exited with exit code 0")


@pytest.fixture
def cluster() -> Iterator[Postgres]:
    with postgres.postgres(authentication_timeout=PATIENCE_S, log_min_messages="debug2") as running:
        yield running


def psql_logs_in(agent: AgentProcess, route: str) -> None:
    target = ("-h", LOOPBACK, "-p", str(agent.port(route)), "-U", postgres.USER, "-d", "postgres")
    query = ("--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "-c", "SELECT 6 * 7")
    assert run(program("psql"), *target, *query) == b"42\n"


@pytest.mark.parametrize(("port", "why"), [(5432, "port"), (ODD, "silence")])
def test_postgres_times_out_none_of_its_warm_tunnels(bastion: Bastion, cluster: Postgres, port: int, why: str) -> None:
    with bastion.gateway.route(f"postgres.example.test:{port}", cluster.port) as address:
        agent = bastion.start({address: deep()})
        wait_for_cycles(agent)
        wait_until(lambda: len(LEFT.findall(cluster.log)) >= CYCLES)
        assert not GAVE_UP.search(cluster.log)
        psql_logs_in(agent, name(address))
        assert agent.wait_for("session.closed")["warm"] is True
        (route,) = agent.status()["routes"]
        assert (route["pool"]["level"], route["pool"]["why"]) == ("tunnel", why)


# Redis waits for its configured timeout.


def redis_answers(agent: AgentProcess, route: str) -> None:
    assert run(program("redis-cli"), "-h", LOOPBACK, "-p", str(agent.port(route)), "ping") == b"PONG\n"


@pytest.mark.parametrize("port", [6379, ODD])
def test_redis_closes_and_refuses_none_of_its_warm_tunnels(
    bastion: Bastion, tmp_path_factory: pytest.TempPathFactory, port: int
) -> None:
    limits = {"timeout": str(PATIENCE_S), "maxclients": str(2 * DEPTH)}
    with redis(tmp_path_factory.mktemp("redis"), **limits) as upstream:
        with bastion.gateway.route(f"redis.example.test:{port}", upstream) as address:
            agent = bastion.start({address: deep()})
            wait_for_cycles(agent)
            redis_answers(agent, name(address))
            assert agent.wait_for("session.closed")["warm"] is True
            assert not agent.events("tunnel.closed", reason="peer_closed")
        stats = run(program("redis-cli"), "-h", LOOPBACK, "-p", str(upstream), "info", "stats").decode()
    assert int(re.findall(r"total_connections_received:(\d+)", stats)[0]) >= CYCLES
    assert "rejected_connections:0\r\n" in stats
