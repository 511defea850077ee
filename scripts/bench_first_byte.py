"""Measures how long an application waits for its first byte from a distant gateway, and how often a tunnel was warm.

``Distance`` delays every byte between client and gateway, both ways. It cannot delay a TCP handshake, so a fresh
dial looks one round trip better than it is. In each round every kind of client has its turn, in another order, so that
disturbances of the machine affect all of them alike.
"""

import argparse
import random
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.bench_agent import BenchedAgent, Row, Tables, percentile
from scripts.bench_envoy import EnvoyClient
from tests.gateway import client
from tests.gateway.agent_toml import write_agent_toml
from tests.gateway.distance import Distance
from tests.gateway.facade import HOST, Gateway, destination
from tests.gateway.ports import LOOPBACK
from tests.support.agent.agent_process import connect
from tests.support.agent.bastion import ANY, say

ROUNDS = {0: 300, 20: 150, 80: 60}
"""Rounds by delay each way, in milliseconds. With longer delays less depends on the machine."""
QUICK_ROUNDS = {0: 3, 1: 3}
LEVELS = ("tunnel", "tls", "off")
BARE, ENVOY = "bare tunnel", "Envoy"

TAKES_ONE_WAY_MS = 20
POOL_MAX = (4, 16)
RATE = 5.0
"""Rate of independent arrivals, per second."""
BURST, BURST_EVERY_S = 10, 2.0
TAKES, QUICK_TAKES = 300, 10

ECHO = destination("echo")
PAYLOAD = b"hello\n"
SETTLE_S = 0.1
"""Seconds between turns, besides some round trips, so that refills do not compete with the measurement."""


@dataclass
class Waits:
    """Waits of the applications of one kind of client, in milliseconds."""

    of: list[float] = field(default_factory=list)
    warm: int | None = None
    """Applications with a warm tunnel, where the client knows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, help=f"for each delay; default: {ROUNDS} by delay in ms")
    parser.add_argument("--takes", type=int, help=f"of each pattern of arrivals; default: {TAKES}")


def run(options: argparse.Namespace) -> Tables:
    """Measure and return a table of waits and one of takes."""
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    takes = options.takes or (QUICK_TAKES if options.quick else TAKES)
    with Gateway() as gateway:
        waits = [
            row for delay, count in rounds.items() for row in _first_bytes(gateway, delay, options.rounds or count)
        ]
        return {
            "first byte": waits,
            "takes": _takes(gateway, takes, max(rounds) if options.quick else TAKES_ONE_WAY_MS),
        }


# --- the first byte -------------------------------------------------------------------------------------------------


def _first_bytes(gateway: Gateway, one_way_ms: float, rounds: int) -> list[Row]:
    print(f"first byte, {one_way_ms} ms each way …", file=sys.stderr)
    routes = {level: {"warm": level, "pool_min": 2} for level in LEVELS}
    with _at_a_distance(gateway, one_way_ms, routes) as (agent, distance, directory):
        with EnvoyClient(directory, gateway, distance.port, ECHO) as envoy:
            turns: dict[str, Callable[[], float]] = {BARE: lambda: _bare(gateway, distance.port)}
            turns |= {level: _application(agent.port(level)) for level in LEVELS}
            turns[ENVOY] = _application(envoy.port)
            waits = _in_turns(turns, rounds, SETTLE_S + 4 * one_way_ms / 1000)
        for level in LEVELS:
            waits[level].warm = _warm_takes(agent, level, rounds)
    return [_row(one_way_ms, kind, of, waits) for kind, of in waits.items()]


def _in_turns(turns: dict[str, Callable[[], float]], rounds: int, pause_s: float) -> dict[str, Waits]:
    waits = {kind: Waits() for kind in turns}
    order = list(turns)
    for _ in range(rounds):
        order.append(order.pop(0))
        for kind in order:
            time.sleep(pause_s)
            waits[kind].of.append(turns[kind]())
    return waits


def _bare(gateway: Gateway, port: int) -> float:
    """Return the wait over a tunnel that was opened beforehand by hand. Blocks."""
    connection = client.secure((LOOPBACK, port), HOST, gateway.ca_file)
    with client.connect(connection, ECHO, {"Authorization": f"Pomerium {gateway.token}"}) as tunnel:
        time.sleep(SETTLE_S)
        began = time.perf_counter()
        tunnel.send(PAYLOAD)
        assert tunnel.receive(len(PAYLOAD)) == PAYLOAD
        return (time.perf_counter() - began) * 1000


def _application(port: int) -> Callable[[], float]:
    """Return an application that connects, sends, receives the answer, closes, and returns its wait."""

    def wait() -> float:
        began = time.perf_counter()
        with connect(port) as application:
            application.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            assert say(application, PAYLOAD) == PAYLOAD
            return (time.perf_counter() - began) * 1000

    return wait


def _row(one_way_ms: float, kind: str, waits: Waits, all_waits: dict[str, Waits]) -> Row:
    median = percentile(waits.of, 50)
    bare, envoy = (percentile(all_waits[other].of, 50) for other in (BARE, ENVOY))
    return {
        "each way ms": one_way_ms,
        "client": f"warm = {kind}" if kind in LEVELS else kind,
        "rounds": len(waits.of),
        "p50 ms": round(median, 2),
        "p90 ms": round(percentile(waits.of, 90), 2),
        "p99 ms": round(percentile(waits.of, 99), 2),
        "over bare ms": round(median - bare, 2),
        "of Envoy's": round(median / envoy, 2),
        "warm": _share(waits),
    }


# --- takes ----------------------------------------------------------------------------------------------------------


def _takes(gateway: Gateway, takes: int, one_way_ms: float) -> list[Row]:
    patterns = {f"{RATE:g}/s, Poisson": _poisson(takes), f"{BURST} every {BURST_EVERY_S:g} s": _bursts(takes)}
    rows = []
    for pattern, arrivals in patterns.items():
        for pool_max in POOL_MAX:
            print(f"{takes} takes, {pattern}, pool_max = {pool_max} …", file=sys.stderr)
            routes = {"pool": {"warm": "tunnel", "pool_max": pool_max}}
            with _at_a_distance(gateway, one_way_ms, routes) as (agent, _, _):
                time.sleep(1)  # the pool's first tunnel
                waits = _arrive(_application(agent.port("pool")), arrivals)
                waits.warm = _warm_takes(agent, "pool", takes)
            rows.append(
                {
                    "arrivals": pattern, "pool_max": pool_max, "takes": takes, "warm": _share(waits),
                    "p50 ms": round(percentile(waits.of, 50), 2), "p90 ms": round(percentile(waits.of, 90), 2),
                    "p99 ms": round(percentile(waits.of, 99), 2),
                }
            )  # fmt: skip
    return rows


def _poisson(count: int) -> list[float]:
    """Return arrival times in seconds from the first, the same in every run."""
    dice = random.Random(0)
    moments = [0.0]
    while len(moments) < count:
        moments.append(moments[-1] + dice.expovariate(RATE))
    return moments


def _bursts(count: int) -> list[float]:
    return [index // BURST * BURST_EVERY_S for index in range(count)]


def _arrive(application: Callable[[], float], moments: Sequence[float]) -> Waits:
    """Start each application at its time, whether earlier ones still wait or not. Blocks."""
    began = time.monotonic()
    with ThreadPoolExecutor(4 * BURST) as threads:
        pending = []
        for moment in moments:
            time.sleep(max(0.0, began + moment - time.monotonic()))
            pending.append(threads.submit(application))
        return Waits([one.result() for one in pending])


# --- both -----------------------------------------------------------------------------------------------------------


@contextmanager
def _at_a_distance(
    gateway: Gateway, one_way_ms: float, routes: dict[str, dict[str, Any]]
) -> Iterator[tuple[BenchedAgent, Distance, Path]]:
    """Run an agent with these routes to the echo server, behind a gateway at this distance."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pomagent-bench-")))
        distance = stack.enter_context(Distance((LOOPBACK, gateway.port), one_way_ms))
        path = write_agent_toml(
            directory, gateway,
            {name: {"from": f"tcp+https://{ECHO}", "listen": ANY, **keys} for name, keys in routes.items()},
            **{"status": {"listen": ""}, "gateways.demo": {"connect_to": f"{LOOPBACK}:{distance.port}"}},
        )  # fmt: skip
        agent = stack.enter_context(BenchedAgent(path, directory / "agent.log"))
        agent.wait_for("agent.started")
        yield agent, distance, directory


def _warm_takes(agent: BenchedAgent, route: str, sessions: int) -> int:
    """Return how many sessions of the route had a warm tunnel, from the agent's log."""
    agent.wait_until(lambda: len(_sessions(agent, route)) == sessions, f"not {sessions} sessions of {route}")
    return sum(event["warm"] for event in _sessions(agent, route))


def _sessions(agent: BenchedAgent, route: str) -> list[dict[str, Any]]:
    return [event for event in agent.events("session.closed") if event["route"] == route]


def _share(waits: Waits) -> str | None:
    return None if waits.warm is None else f"{100 * waits.warm / len(waits.of):.0f} %"
