"""Measures processor time and wall clock of a gigabyte, one stream and many, down and up, against Envoy as the client.

All processes share the machine, so the processor time of the measured process is a better measure than the wall clock.
``fairness`` measures an interactive session beside busy ones.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from tempfile import NamedTemporaryFile

from scripts import bench_stalls
from scripts.bench_agent import Row, Tables, ms, percentile
from scripts.bench_pair import AGENT, ENVOY, Contender, in_turns, pair
from scripts.bench_traffic import WAYS, Application, Busy, at_once

GIGABYTE = 10**9
MEGABYTES, QUICK_MEGABYTES = 1000, 8
"""Megabytes of one turn over all its streams."""
ROUNDS, QUICK_ROUNDS = 5, 1
STREAMS = (1, 16)
BULK = "bulk"
ROUTE = {BULK: {"warm": "off"}}

BULK_STREAMS = 8
ECHOES, QUICK_ECHOES = 500, 5
ECHO_PAUSE_S = 0.005


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--megabytes", type=int, help=f"of one turn; default: {MEGABYTES}")
    parser.add_argument("--rounds", type=int, help=f"of which the median is taken; default: {ROUNDS}")
    parser.add_argument("--transport", choices=("http1", "http2"), default="http1", help="of the agent; default: http1")


def run(options: argparse.Namespace) -> Tables:
    """Measure and return a table of costs and one of echoes beside busy sessions."""
    length = (options.megabytes or (QUICK_MEGABYTES if options.quick else MEGABYTES)) * 10**6
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    echoes = QUICK_ECHOES if options.quick else ECHOES
    with pair(ROUTE, transport=options.transport) as both:
        costs = [
            row
            for streams in STREAMS
            for way in WAYS
            for row in _costs(both.contenders(BULK), streams, way, length, rounds)
        ]
    with (
        NamedTemporaryFile(prefix="pomagent-bench-") as file,
        pair(ROUTE, bench_stalls.program(file.name), options.transport) as both,
    ):
        stalls = bench_stalls.Stalls(file.name)
        fairness = [row for way in WAYS for row in _fairness(both.contenders(BULK), way, echoes, stalls)]
    return {"throughput": costs, f"an echo beside {BULK_STREAMS} busy sessions": fairness}


# --- what a gigabyte costs ------------------------------------------------------------------------------------------


def _costs(contenders: list[Contender], streams: int, way: str, length: int, rounds: int) -> Iterator[Row]:
    print(f"{streams} × {way} …", file=sys.stderr)
    cpu: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    wall: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for contender in in_turns(contenders, rounds):
        seconds, used = _turn(contender, streams, way, length)
        wall[contender.name].append(seconds)
        cpu[contender.name].append(used)
    gigabytes = length / GIGABYTE
    cpu_of, wall_of = ({name: statistics.median(values) for name, values in of.items()} for of in (cpu, wall))
    for name in (AGENT, ENVOY):
        yield {
            "streams": streams, "way": way, "client": name, "rounds": rounds,
            "CPU s/GB": round(cpu_of[name] / gigabytes, 3),
            "of Envoy's": round(cpu_of[name] / cpu_of[ENVOY], 2) if cpu_of[ENVOY] else None,
            "GB/s": round(gigabytes / wall_of[name], 3),
            "of Envoy's GB/s": round(wall_of[ENVOY] / wall_of[name], 2),
        }  # fmt: skip


def _turn(contender: Contender, streams: int, way: str, length: int) -> tuple[float, float]:
    """Return elapsed seconds and the processor time that the contender used."""
    with _applications(contender.port, streams) as applications:
        began, used = time.monotonic(), contender.cpu_s
        at_once([lambda one=one: WAYS[way](one, length // streams) for one in applications])  # type: ignore[misc]
        return time.monotonic() - began, contender.cpu_s - used


@contextmanager
def _applications(port: int, count: int) -> Iterator[list[Application]]:
    with ExitStack() as stack:
        applications = [stack.enter_context(Application(port)) for _ in range(count)]
        for application in applications:
            application.echo()  # its tunnel is open
        yield applications


# --- fairness -------------------------------------------------------------------------------------------------------


def _fairness(contenders: list[Contender], way: str, echoes: int, stalls: bench_stalls.Stalls) -> Iterator[Row]:
    print(f"an echo beside {BULK_STREAMS} × {way} …", file=sys.stderr)
    for contender in contenders:
        with Busy(contender.port, way, BULK_STREAMS), Application(contender.port) as application:
            application.echo()
            stalls.forget()
            waits = [_echo_s(application) * 1000 for _ in range(echoes)]
            is_ours = contender.name == AGENT
            yield {
                "busy way": way, "client": contender.name, "echoes": echoes,
                "p50 ms": round(percentile(waits, 50), 2), "p99 ms": round(percentile(waits, 99), 2),
                "longest turn CPU ms": ms(stalls.cpu_s) if is_ours else None,
                "longest turn ms": ms(stalls.wall_s) if is_ours else None,
            }  # fmt: skip


def _echo_s(application: Application) -> float:
    time.sleep(ECHO_PAUSE_S)
    began = time.perf_counter()
    application.echo()
    return time.perf_counter() - began
