"""A route for some local users: the kernel identifies them on every kind of socket."""

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.facade import Gateway
from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import scaled
from tests.servers.programs import program
from tests.servers.redis import redis
from tests.support.agent import processes
from tests.support.agent.agent_process import AgentProcess, clean_environment
from tests.support.agent.bastion import ANY, Bastion

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as another user")

REDIS = "redis.example.test:6379"
ALLOWED, OTHER = "daemon", "nobody"
ROUTES = ("v4", "v6", "unix")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that, unlike pytest's, every user may enter."""
    path = Path(tempfile.mkdtemp(prefix="pomagent-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def agent(bastion: Bastion, gateway: Gateway, tmp_path: Path, open_directory: Path) -> Iterator[AgentProcess]:
    listen = {"v4": ANY, "v6": "[::1]:0", "unix": f"unix:{open_directory}/redis.sock"}
    tables = [
        {"name": name, "from": f"tcp+https://{REDIS}", "listen": listen[name], "allow_users": [ALLOWED],
         **({"socket_mode": "0666"} if name == "unix" else {})}
        for name in ROUTES
    ]  # fmt: skip
    with redis(tmp_path) as port, gateway.route(REDIS, port):
        yield bastion.start(dict(zip(("echo", "banner", "slow"), tables, strict=True)))


def ping(agent: AgentProcess, route: str, user: str, directory: Path) -> Any:
    """Run ``redis-cli ping`` as a user and return its output."""
    if route == "unix":
        where = ["-s", f"{directory}/redis.sock"]
    else:
        where = ["-h", LOOPBACK if route == "v4" else "::1", "-p", str(agent.port(route))]
    return processes.run(
        [program("redis-cli"), *where, "ping"], user=user, group=pwd.getpwnam(user).pw_gid, extra_groups=[],
        capture_output=True, text=True, check=False, timeout=scaled(20), env=clean_environment(), cwd="/",
    )  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_named_user_reaches_redis_and_other_users_are_reset_and_logged(
    agent: AgentProcess, route: str, open_directory: Path
) -> None:
    served = ping(agent, route, ALLOWED, open_directory)
    assert (served.returncode, served.stdout) == (0, "PONG\n"), served.stderr
    closed = agent.wait_for("session.closed", route=route)
    assert (closed["uid"], closed["user"]) == (pwd.getpwnam(ALLOWED).pw_uid, ALLOWED)

    refused = ping(agent, route, OTHER, open_directory)
    assert refused.returncode != 0
    assert "PONG" not in refused.stdout
    assert route == "unix" or "reset" in refused.stderr + refused.stdout
    line = agent.wait_for("session.refused", route=route)
    assert (line["uid"], line["user"]) == (pwd.getpwnam(OTHER).pw_uid, OTHER)
    assert (line["reason"], line["recovery"], line["level"]) == ("user", "operator", "warning")
    assert len(agent.events("session.closed", route=route)) == 1
