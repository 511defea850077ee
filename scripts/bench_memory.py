"""Measures the memory of idle sessions, before and after they were busy, and what closed sessions leave behind.

Envoy as the client is measured beside it. Memory per session is the growth of resident memory over the open sessions.
"""

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

from scripts.bench_agent import Row, Tables
from scripts.bench_churn import come_and_go
from scripts.bench_pair import Contender, pair
from scripts.bench_traffic import Application, at_once

SESSIONS, QUICK_SESSIONS = 1000, 20
GONE, QUICK_GONE = 10_000, 100
"""Short sessions that were opened and closed."""
HOT_BYTES = 2 * 10**6
"""Bytes that each session moves each way to become hot."""
SETTLE_S, QUICK_SETTLE_S = 5.0, 0.2
SPARE_DESCRIPTORS = 500
"""Descriptors of the gateway besides those of open sessions."""
TOGETHER = 20
"""Sessions that open, or get hot, at a time."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sessions", type=int, help=f"that are open; default: {SESSIONS}")
    parser.add_argument("--gone", type=int, help=f"that come and go; default: {GONE}")


def run(options: argparse.Namespace) -> Tables:
    """Measure and return a table with one row for each client."""
    sessions = options.sessions or (QUICK_SESSIONS if options.quick else SESSIONS)
    gone = options.gone or (QUICK_GONE if options.quick else GONE)
    settle_s = QUICK_SETTLE_S if options.quick else SETTLE_S
    _allow_descriptors(sessions)
    with pair({"idle": {"warm": "off", "pool_max": 1}}) as both:
        return {"idle sessions": [_measure(one, sessions, gone, settle_s) for one in both.contenders("idle")]}


def _measure(contender: Contender, sessions: int, gone: int, settle_s: float) -> Row:
    """Return the row of a contender.

    ``growth`` covers the second half of the short sessions, after the allocator has reached its first maximum.
    """
    print(f"{contender.name} …", file=sys.stderr)
    with Application(contender.port) as first:
        first.echo()  # objects that are created once
    memory = _Memory(contender, settle_s)
    empty = memory.kb()
    with ExitStack() as stack:
        open_now = _open(stack, contender.port, sessions)
        idle = memory.kb()
        for some in _groups(open_now):
            at_once([lambda one=one: one.down(HOT_BYTES) for one in some])  # type: ignore[misc]
            at_once([lambda one=one: one.up(HOT_BYTES) for one in some])  # type: ignore[misc]
        hot = memory.kb()
    closed = memory.kb()
    come_and_go(contender.port, gone // 2)
    halfway = memory.kb()
    come_and_go(contender.port, gone // 2)
    after = memory.kb()
    return {
        "client": contender.name, "sessions": sessions, "empty MB": round(empty / 1024, 1),
        "KB each idle": round((idle - empty) / sessions, 1),
        "KB each once hot": round((hot - empty) / sessions, 1),
        "KB each more once hot": round((hot - idle) / sessions, 1),
        "all closed MB": round(closed / 1024, 1),
        "gone": gone,
        "after half of them MB": round(halfway / 1024, 1),
        "after all of them MB": round(after / 1024, 1),
        "growth MB": round((after - halfway) / 1024, 2),
    }  # fmt: skip


def _allow_descriptors(sessions: int) -> None:
    """Raise the descriptor limit of this process and its children. The gateway needs two for each session."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * sessions + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SystemExit(f"{sessions} sessions need {needed} descriptors, and ulimit -Hn is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Memory:
    """Reads the memory of a process that has come to rest."""

    def __init__(self, contender: Contender, settle_s: float) -> None:
        self._contender = contender
        self._settle_s = settle_s

    def kb(self) -> int:
        time.sleep(self._settle_s)
        return self._contender.memory_kb


def _open(stack: ExitStack, port: int, count: int) -> list[Application]:
    """Open a number of sessions and wait until each has a tunnel. Blocks."""
    applications: list[Application] = []
    while len(applications) < count:
        some = [stack.enter_context(Application(port)) for _ in range(min(TOGETHER, count - len(applications)))]
        at_once([one.echo for one in some])
        applications += some
    return applications


def _groups(applications: list[Application]) -> Iterator[list[Application]]:
    for start in range(0, len(applications), TOGETHER):
        yield applications[start : start + TOGETHER]
