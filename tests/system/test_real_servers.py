"""Redis, PostgreSQL and OpenSSH, with their own clients, through the real agent and the real gateway."""

import contextlib
import hashlib
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.conftest import wait_until
from tests.gateway.agent_toml import write_token
from tests.gateway.destinations import pseudo_random, sha256_of
from tests.gateway.facade import Gateway
from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import scaled
from tests.servers.openssh import SshServer, openssh
from tests.servers.postgres import USER, Postgres, postgres
from tests.servers.programs import program, run
from tests.servers.redis import redis
from tests.support.agent import processes
from tests.support.agent.agent_process import AgentProcess, clean_environment, connect, pomagent
from tests.support.agent.bastion import ANY, Bastion, hear
from tests.support.agent.tcp_process import gateway_flags

# The usual ports, so that the presets of the protocols apply.
REDIS, POSTGRES, SSH = "redis.example.test:6379", "postgres.example.test:5432", "ssh.example.test:22"
MIB = 1024 * 1024
TIMEOUT_S = 60


# Redis.


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with redis(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture
def redis_route(gateway: Gateway, redis_port: int) -> Iterator[str]:
    with gateway.route(REDIS, redis_port) as address:
        yield address


@pytest.fixture
def redis_agent(bastion: Bastion, redis_route: str) -> AgentProcess:
    return bastion.start({REDIS: ANY})


def test_redis_stores_and_returns_a_value(redis_agent: AgentProcess) -> None:
    redis_agent.wait_for("pool.filled")  # the preset of redis keeps whole tunnels
    cli = (program("redis-cli"), "-h", LOOPBACK, "-p", str(_port(redis_agent, REDIS)))
    assert run(*cli, "ping") == b"PONG\n"
    assert run(*cli, "set", "colour", "red") == b"OK\n"
    assert run(*cli, "get", "colour") == b"red\n"
    redis_agent.wait_for("session.closed", count=3)
    assert redis_agent.events("session.closed")[0]["warm"] is True
    assert {event["reason"] for event in redis_agent.events("session.closed")} == {"finished"}


def test_large_redis_value_is_unchanged(redis_agent: AgentProcess) -> None:
    cli = (program("redis-cli"), "-h", LOOPBACK, "-p", str(_port(redis_agent, REDIS)))
    value = b"".join(pseudo_random(21, 4 * MIB))
    assert run(*cli, "-x", "set", "large", stdin=value) == b"OK\n"
    assert hashlib.sha256(run(*cli, "--raw", "get", "large")[:-1]).hexdigest() == sha256_of(21, 4 * MIB)


def test_redis_benchmark_runs_without_an_error(redis_agent: AgentProcess) -> None:
    port = str(_port(redis_agent, REDIS))
    output = run(program("redis-benchmark"), "-h", LOOPBACK, "-p", port, "-n", "20000", "-t", "ping,set,get", "-q")
    assert b"requests per second" in output
    assert b"error" not in output.lower()
    assert not redis_agent.events("session.refused")


def test_redis_answers_a_pipe_through_tcp(gateway: Gateway, redis_route: str, tmp_path: Path) -> None:
    write_token(tmp_path / "token", gateway.token)
    flags = gateway_flags(gateway, tmp_path / "token")
    done = pomagent("tcp", "--listen", "-", *flags, redis_route, stdin=b"PING\r\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "+PONG\r\n", "")


# PostgreSQL.


@pytest.fixture(scope="module")
def cluster() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture
def postgres_agent(bastion: Bastion, cluster: Postgres) -> Iterator[AgentProcess]:
    with bastion.gateway.route(POSTGRES, cluster.port):
        yield bastion.start({POSTGRES: ANY})


def psql(agent: AgentProcess, *arguments: str) -> tuple[str, ...]:
    target = ("-h", LOOPBACK, "-p", str(_port(agent, POSTGRES)), "-U", USER, "-d", "postgres")
    return (program("psql"), *target, "--no-psqlrc", "--no-align", "--tuples-only", "--quiet", *arguments)


def test_postgres_runs_a_query_over_a_warm_tunnel(postgres_agent: AgentProcess) -> None:
    postgres_agent.wait_for("pool.filled")
    assert run(*psql(postgres_agent, "-c", "SELECT 6 * 7")) == b"42\n"
    assert postgres_agent.wait_for("session.closed")["warm"] is True


def test_postgres_result_of_5_mb_is_complete(postgres_agent: AgentProcess) -> None:
    rows = 160_000
    output = run(*psql(postgres_agent, "-c", f"SELECT md5(i::text) FROM generate_series(1, {rows}) AS i"))
    expected = b"".join(hashlib.md5(b"%d" % row).hexdigest().encode() + b"\n" for row in range(1, rows + 1))
    assert len(expected) > 5_000_000
    assert output == expected


def test_postgres_copy_of_5_mb_arrives_complete(postgres_agent: AgentProcess) -> None:
    rows = b"".join(b"%d\n" % row for row in range(750_000))
    assert len(rows) > 5_000_000
    script = "CREATE TEMPORARY TABLE numbers (number int); COPY numbers FROM STDIN;\n"
    output = run(
        *psql(postgres_agent), stdin=script.encode() + rows + b"\\.\nSELECT count(*), sum(number) FROM numbers;\n"
    )
    assert output == b"750000|%d\n" % sum(range(750_000))


def test_notification_reaches_a_listening_postgres_session(postgres_agent: AgentProcess) -> None:
    with listener(postgres_agent) as session:
        assert ask(session, "LISTEN news; SELECT 'listening';") == "listening\n"
        run(*psql(postgres_agent, "-c", "NOTIFY news, 'it works'"))
        # psql shows notifications after the answer to a query.
        news = wait_until(lambda: (line := ask(session, "SELECT 'nothing';")) != "nothing\n" and line)
        assert news.startswith('Asynchronous notification "news" with payload "it works" received')
    assert postgres_agent.wait_for("session.closed", count=2)["reason"] == "finished"


def test_restarted_postgres_is_used_again(postgres_agent: AgentProcess, cluster: Postgres) -> None:
    warm = postgres_agent.wait_for("tunnel.opened")["request_id"]
    cluster.stop()
    postgres_agent.wait_for("tunnel.closed", request_id=warm, reason="peer_closed")
    postgres_agent.wait_for("tunnel.failed", status=503)
    cluster.start()
    assert run(*psql(postgres_agent, "-c", "SELECT 1")) == b"1\n"
    postgres_agent.wait_for("pool.filled", count=2)


@contextlib.contextmanager
def listener(agent: AgentProcess) -> Iterator[processes.Process]:
    """A psql session that stays open between queries."""
    session = processes.Process(
        psql(agent), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment()
    )
    with session:
        try:
            yield session
            _pipe(session.stdin).close()
            assert session.wait(scaled(TIMEOUT_S)) == 0
        finally:
            session.kill()


def ask(session: processes.Process, query: str) -> str:
    """Return one line of the answer. Blocks."""
    _pipe(session.stdin).write(f"{query}\n")
    _pipe(session.stdin).flush()
    return str(_pipe(session.stdout).readline())


# OpenSSH.


@pytest.fixture(scope="module")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with openssh(tmp_path_factory.mktemp("sshd")) as server:
        yield server


Ssh = tuple[str, ...]


@pytest.fixture
def ssh_agent(bastion: Bastion, ssh_server: SshServer) -> Iterator[AgentProcess]:
    with bastion.gateway.route(SSH, ssh_server.port):
        yield bastion.start({SSH: ANY})


@pytest.fixture
def ssh_by_port(ssh_agent: AgentProcess, ssh_server: SshServer) -> Ssh:
    """Return an ssh command to the local port of the agent."""
    return program("ssh"), *ssh_server.client_options, "-p", str(_port(ssh_agent, SSH)), LOOPBACK


@pytest.fixture
def ssh_by_command(gateway: Gateway, ssh_server: SshServer, tmp_path: Path) -> Iterator[Ssh]:
    """Return an ssh command with a ProxyCommand and without an agent."""
    write_token(tmp_path / "token", gateway.token)
    flags = gateway_flags(gateway, tmp_path / "token")
    command = shlex.join([sys.executable, "-m", "pomagent", "tcp", "--listen", "-", *flags])
    with gateway.route(SSH, ssh_server.port):
        host, _, port = SSH.rpartition(":")
        proxy = f"ProxyCommand={command} %h:%p"
        yield program("ssh"), *ssh_server.client_options, "-o", proxy, "-p", port, host


@pytest.fixture(params=["ssh_by_port", "ssh_by_command"])
def ssh(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_ssh_runs_a_command(ssh: Ssh) -> None:
    assert run(*ssh, "echo it works") == b"it works\n"


def test_ssh_reports_the_commands_exit_code(ssh: Ssh) -> None:
    assert (
        processes.run([*ssh, "exit 7"], check=False, timeout=scaled(TIMEOUT_S), env=clean_environment()).returncode == 7
    )


def test_ssh_carries_8_mib_up(ssh: Ssh) -> None:
    body = b"".join(pseudo_random(31, 8 * MIB))
    assert run(*ssh, "sha256sum", stdin=body).split()[0].decode() == sha256_of(31, 8 * MIB)


def test_ssh_carries_8_mib_down(ssh: Ssh, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"".join(pseudo_random(32, 8 * MIB)))
    assert hashlib.sha256(run(*ssh, f"cat {shlex.quote(str(source))}")).hexdigest() == sha256_of(32, 8 * MIB)


def test_ssh_carries_8_mib_both_ways_at_once(ssh: Ssh) -> None:
    body = b"".join(pseudo_random(33, 8 * MIB))
    assert hashlib.sha256(run(*ssh, "cat", stdin=body)).hexdigest() == sha256_of(33, 8 * MIB)


def test_ssh_banner_arrives_and_no_connection_waits_at_the_server(ssh_agent: AgentProcess, gateway: Gateway) -> None:
    ssh_agent.wait_for("pool.filled")
    assert gateway.edge.open_connections == 1
    assert not gateway.authorizer.checks_for(SSH)  # sshd counts connections without a login
    with connect(_port(ssh_agent, SSH)) as client:
        assert hear(client, 8) == b"SSH-2.0-"
    assert ssh_agent.wait_for("session.closed")["warm"] is True


def _port(agent: AgentProcess, address: str) -> int:
    return agent.port(address.replace(":", "-"))


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
