"""What idle sessions hold in memory, before they were ever busy and after; and what sessions leave behind.

Beside Envoy as the client. Resident memory over all sessions that are open, from what the process had without one.
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
"""Short sessions that have come and gone."""
HOT_BYTES = 2 * 10**6
"""That each session moves once, each way, to be hot."""
SETTLE_S, QUICK_SETTLE_S = 5.0, 0.2
SPARE_DESCRIPTORS = 500
"""Of the gateway, besides those of the sessions that are open."""
TOGETHER = 20
"""Sessions that open, or get hot, at a time."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sessions", type=int, help=f"that are open; default: {SESSIONS}")
    parser.add_argument("--gone", type=int, help=f"that come and go; default: {GONE}")


def run(options: argparse.Namespace) -> Tables:
    """One row for each client."""
    sessions = options.sessions or (QUICK_SESSIONS if options.quick else SESSIONS)
    gone = options.gone or (QUICK_GONE if options.quick else GONE)
    settle_s = QUICK_SETTLE_S if options.quick else SETTLE_S
    _allow_descriptors(sessions)
    with pair({"idle": {"warm": "off", "pool_max": 1}}) as both:
        return {"idle sessions": [_measure(one, sessions, gone, settle_s) for one in both.contenders("idle")]}


def _measure(contender: Contender, sessions: int, gone: int, settle_s: float) -> Row:
    """``growth``: over the second half of those that come and go, when the allocator has had its first high water."""
    print(f"{contender.name} …", file=sys.stderr)
    with Application(contender.port) as first:
        first.echo()  # what is made once
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
    """Ours, and those of the processes we start: the gateway between them has two for each session."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * sessions + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SystemExit(f"{sessions} sessions need {needed} descriptors, and ulimit -Hn is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Memory:
    """Of a process that has come to rest."""

    def __init__(self, contender: Contender, settle_s: float) -> None:
        self._contender = contender
        self._settle_s = settle_s

    def kb(self) -> int:
        time.sleep(self._settle_s)
        return self._contender.memory_kb


def _open(stack: ExitStack, port: int, count: int) -> list[Application]:
    """So many sessions, each with a tunnel that stands."""
    applications: list[Application] = []
    while len(applications) < count:
        some = [stack.enter_context(Application(port)) for _ in range(min(TOGETHER, count - len(applications)))]
        at_once([one.echo for one in some])
        applications += some
    return applications


def _groups(applications: list[Application]) -> Iterator[list[Application]]:
    for start in range(0, len(applications), TOGETHER):
        yield applications[start : start + TOGETHER]
