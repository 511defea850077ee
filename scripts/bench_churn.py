"""Measures the processor time of a short session against Envoy as the client: connect, echo one byte, close.

A warm session leaves a gap in the pool that a dial fills. The cost of that dial is measured separately, by making a
pool deeper.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

from scripts.bench_agent import Row, Tables
from scripts.bench_pair import AGENT, ENVOY, Contender, Pair, in_turns, pair, write_routes
from scripts.bench_traffic import Application, at_once
from tests.gateway.waiting import wait_until

SESSIONS, QUICK_SESSIONS = 500, 20
"""Sessions of one turn."""
ROUNDS, QUICK_ROUNDS = 5, 1
AT_ONCE = 4
DIALS, QUICK_DIALS = 200, 10
DEPTH = 8
"""Depth of the warm route's pool, enough for all concurrent sessions."""
TIMEOUT_S = 120
SETTLE_S = 0.5
COLD, WARM = "cold", "warm"
ROUTES = {
    COLD: {"warm": "off"},
    WARM: {"warm": "tunnel", "pool_min": DEPTH, "pool_max": DEPTH},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sessions", type=int, help=f"of one turn; default: {SESSIONS}")
    parser.add_argument("--rounds", type=int, help=f"of which the median is taken; default: {ROUNDS}")


def run(options: argparse.Namespace) -> Tables:
    """Measure and return tables of processor time in milliseconds."""
    sessions = options.sessions or (QUICK_SESSIONS if options.quick else SESSIONS)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    dials = QUICK_DIALS if options.quick else DIALS
    with pair(ROUTES) as both:
        _wait_for_tunnels(both, DEPTH)
        agent, envoy = both.contenders(COLD)
        warm, _ = both.contenders(WARM)
        kinds = {COLD: agent, WARM: warm, ENVOY: envoy}
        costs = _costs(kinds, sessions, rounds)
        dial = statistics.median(_dial_ms(both, dials, index) for index in range(rounds))
    rows = [_row(ENVOY, "cold", costs[ENVOY], costs), _row(AGENT, "cold", costs[COLD], costs)]
    rows.append(_row(AGENT, "warm, with the refill's dial", costs[WARM], costs))
    rows.append(_row(AGENT, "a dial alone, for the pool", dial, costs))
    rows.append(_row(AGENT, "warm, beyond the dial", costs[WARM] - dial, costs))
    return {"short sessions": rows}


def _row(client: str, what: str, cost_ms: float, costs: dict[str, float]) -> Row:
    return {
        "client": client, "session": what, "CPU ms": round(cost_ms, 2),
        "of Envoy's": round(cost_ms / costs[ENVOY], 2) if costs[ENVOY] else None,
    }  # fmt: skip


def _costs(kinds: dict[str, Contender], sessions: int, rounds: int) -> dict[str, float]:
    """Return the cost of one session of each kind, the median of the rounds."""
    used: dict[str, list[float]] = {kind: [] for kind in kinds}
    names = {contender.port: kind for kind, contender in kinds.items()}
    for contender in in_turns(list(kinds.values()), rounds):
        print(f"{sessions} sessions, {names[contender.port]} …", file=sys.stderr)
        time.sleep(SETTLE_S)  # work of the previous turn must not count
        used[names[contender.port]].append(_cpu_ms(contender, lambda port=contender.port: come_and_go(port, sessions)))  # type: ignore[misc]
    return {kind: statistics.median(values) / sessions for kind, values in used.items()}


def _cpu_ms(contender: Contender, work: Callable[[], None]) -> float:
    before = contender.cpu_s
    work()
    time.sleep(SETTLE_S)  # refills and closes
    return (contender.cpu_s - before) * 1000


def come_and_go(port: int, sessions: int) -> None:
    """Run a number of short sessions, several at a time. Blocks."""

    def work() -> None:
        for _ in range(sessions // AT_ONCE):
            with Application(port) as application:
                application.echo()

    at_once([work] * AT_ONCE)


def _dial_ms(both: Pair, dials: int, index: int) -> float:
    """Return the cost of one dial for a deeper pool, including its share of the reload."""
    deep = {"warm": "tunnel", "pool_min": dials, "pool_max": dials, "pool_max_age_s": 3600 + index}
    agent = both.contenders(WARM)[0]
    _reload(both, {COLD: ROUTES[COLD], WARM: {"warm": "off"}})
    _wait_for_tunnels(both, 0)
    used = _cpu_ms(agent, lambda: (_reload(both, {COLD: ROUTES[COLD], WARM: deep}), _wait_for_tunnels(both, dials))[0])
    return used / dials


def _reload(both: Pair, routes: dict[str, dict[str, object]]) -> None:
    applied = len(both.agent.events("config.applied"))
    write_routes(both.path.parent, both.gateway, routes)
    both.agent.wait_for("config.applied", applied + 1)


def _wait_for_tunnels(both: Pair, count: int) -> None:
    wait_until(lambda: both.gateway.edge.open_tunnels == count, TIMEOUT_S, f"{count} tunnels stand")
