"""Measures what unused warm tunnels cost, with 1,000 routes to one gateway and a tunnel for each.

Three agents are compared: nothing warm, warm tunnels, decayed routes. The windows of the latter two are as long as
tunnels and connections get old. Each is replaced once, so the average is that of a long day.
"""

import argparse
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pomagent.pool.presets import PRESETS
from pomagent.pool.shared_reserve import MIN_KEPT
from pomagent.pool.warm_policy import TLS_MAX_AGE_S
from scripts.bench_agent import BenchedAgent, Row, Tables, ms, percentile, seconds_of
from scripts.bench_routes import check_descriptors
from tests.gateway import client
from tests.gateway.agent_toml import write_agent_toml
from tests.gateway.configuration import Route
from tests.gateway.distance import Distance
from tests.gateway.facade import Gateway, destination
from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import wait_until
from tests.support.agent.bastion import ANY

ROUTES, QUICK_ROUTES = 1000, 20
PROTOCOLS = [name for name, preset in PRESETS.items() if preset.level == "tunnel"]
QUICK_WINDOW_S = 1.0
SETTLE_S = 5.0
DIALS_BY_HAND = 100
FILL_TIMEOUT_S = 120
REST_S = 2.0
DECAY_S = 1
"""``pool_decay_s`` of the routes that decay. No route is ever used."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("routes", nargs="?", type=int, help=f"default: {ROUTES}")
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default="redis", help="of all routes; it decides how old a warm tunnel gets"
    )


def run(options: argparse.Namespace) -> Tables:
    """Measure and return a table with a row for each agent, and the cost of a dial against one by hand."""
    count = options.routes or (QUICK_ROUTES if options.quick else ROUTES)
    tunnels_s = PRESETS[options.protocol].max_age_s
    window_s, reserve_s = (QUICK_WINDOW_S, QUICK_WINDOW_S) if options.quick else (tunnels_s, TLS_MAX_AGE_S)
    check_descriptors(2 * count)
    with Gateway() as gateway:
        gateway.edge.set_routes(
            {_address(index): Route(gateway.destinations.address("echo")) for index in range(count)}
        )
        keys: dict[str, Any] = {"protocol": options.protocol, "warm": "tunnel"}
        cold = _measure(gateway, count, window_s / 6, "nothing warm", warm="off")
        warm = _measure(gateway, count, window_s, "warm", pool_decay_s=0, **keys)
        decayed = _measure(gateway, count, reserve_s, "decayed", pool_decay_s=DECAY_S, **keys)
        by_hand = _by_hand(gateway)
    for row in (warm, decayed):
        row["KB each"] = round((row["memory MB"] - cold["memory MB"]) * 1024 / count, 1)
    dials: list[Row] = [
        {"dialled": "by hand: TLS and CONNECT, with ssl and a socket", "CPU ms": by_hand},
        {"dialled": "by the agent: TLS and CONNECT, to replace a warm tunnel", "CPU ms": _cpu_ms_a_dial(warm, cold)},
    ]
    return {f"{count:,} idle routes": [cold, warm, decayed], "one dial": dials}


def _by_hand(gateway: Gateway) -> float:
    """Return the processor time of a tunnel without an agent, for comparison with the others. Blocks."""
    context = ssl.create_default_context(cafile=str(gateway.ca_file))
    context.set_alpn_protocols(["http/1.1"])
    used = []
    for _ in range(DIALS_BY_HAND):
        began = time.thread_time()
        connection = socket.create_connection((LOOPBACK, gateway.port))
        secured = context.wrap_socket(connection, server_hostname=gateway.host)
        with client.connect(secured, destination("echo"), {"Authorization": f"Pomerium {gateway.token}"}):
            used.append((time.thread_time() - began) * 1000)
    return round(percentile(used, 50), 2)


def _cpu_ms_a_dial(row: Row, cold: Row) -> float | None:
    """Return the processor time of a dial, beyond the usage of an agent without warm tunnels."""
    return round((row["CPU %"] - cold["CPU %"]) * 10 / row["dials /s"], 2) if row["dials /s"] else None


def _measure(gateway: Gateway, count: int, window_s: float, what: str, **keys: Any) -> Row:
    print(f"{what} …", file=sys.stderr)
    decays = keys.get("pool_decay_s", 0) > 0
    with _agent(gateway, count, **keys) as (agent, distance):
        agent.wait_until(lambda: len(agent.events("listener.bound")) == count, "not all routes listen")
        filled = None if keys["warm"] == "off" else _wait_for_pools(gateway, count, agent, distance, decays=decays)
        time.sleep(min(SETTLE_S, window_s))
        before, cpu_s = distance.counts().connections, agent.cpu_s
        time.sleep(window_s)
        counts = distance.counts()
        return {
            "routes are": what,
            "started ms": ms(max(map(seconds_of, agent.events("listener.bound"))) - agent.began),
            "filled s": filled,
            "most handshakes": counts.most_handshakes,
            "window s": round(window_s, 1),
            "dials /s": round((counts.connections - before) / window_s, 2),
            "CPU %": round((agent.cpu_s - cpu_s) / window_s * 100, 2),
            "memory MB": agent.memory_mb,
            "KB each": None,
        }


def _wait_for_pools(
    gateway: Gateway, count: int, agent: BenchedAgent, distance: Distance, *, decays: bool
) -> float:  # fmt: skip
    """Wait until each route has a tunnel, or until all routes have decayed, and return the seconds since the start."""
    edge = gateway.edge
    if not decays:
        wait_until(lambda: edge.open_tunnels >= count, FILL_TIMEOUT_S, "all pools are full")
        return round(time.time() - agent.began, 1)
    wait_until(lambda: edge.open_connections >= MIN_KEPT and not edge.open_tunnels, FILL_TIMEOUT_S, "all decayed")
    wait_until(
        lambda: _rests(distance), FILL_TIMEOUT_S, "no dial any more"
    )  # between two dials no tunnel is open either
    return round(time.time() - REST_S - agent.began, 1)


def _rests(distance: Distance) -> bool:
    """Return whether no connection is made for a while. Blocks for REST_S."""
    made = distance.counts().connections
    time.sleep(REST_S)
    return distance.counts().connections == made


@contextmanager
def _agent(gateway: Gateway, count: int, **keys: Any) -> Iterator[tuple[BenchedAgent, Distance]]:
    """Run an agent with a route to each destination, through a relay that counts and adds no delay."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pomagent-bench-")), "host", "etc")
        directory.mkdir(
            parents=True
        )  # the agent watches this directory and its parent, so other programs must not write there
        distance = stack.enter_context(Distance((LOOPBACK, gateway.port), 0))
        listen = {_address(index): ANY for index in range(count)}
        path = write_agent_toml(
            directory, gateway, listen,
            **{
                "status": {"listen": ""}, "defaults": {"pool_min": 1, **keys},
                "gateways.demo": {"connect_to": f"{LOOPBACK}:{distance.port}"},
            },
        )  # fmt: skip
        yield stack.enter_context(BenchedAgent(path, directory / "agent.log")), distance


def _address(index: int) -> str:
    return f"db-{index:04}.example.test:7000"
