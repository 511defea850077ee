"""The benches run and print complete tables. No test judges their figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts import bench

MAX_DIALS = 8
"""Default of ``max_dials``."""


def test_bench_prints_a_row_for_each_number_of_routes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    assert bench.main(["routes", "--quick", "--json", str(figures)]) == 0
    _, title, _, header, _, *rows = capsys.readouterr().out.partition("\n\nroutes beside Envoy")[0].splitlines()
    assert title == "routes"
    assert [row.split("|")[1].strip() for row in rows] == ["10", "50"]
    document = json.loads(figures.read_text())
    assert [row["routes"] for row in document["tables"]["routes"]] == [10, 50]
    assert [name.strip() for name in header.strip("|").split("|")] == list(document["tables"]["routes"][0])
    assert document["machine"]["cpus"]
    beside = document["tables"]["routes beside Envoy"]
    both = ["pomagent", "Envoy"]
    assert [(row["routes"], row["client"]) for row in beside] == [(count, one) for count in (10, 50) for one in both]
    # the agent's edits are live after its quiet time, which Envoy does not have
    assert all(row["edit seen ms"] > row["of it quiet ms"] and row["listen ms"] > 0 for row in beside)


def test_first_byte_is_measured_for_every_kind_of_client(tmp_path: Path) -> None:
    tables = figures_of("first-byte", tmp_path)
    clients = ["bare tunnel", "warm = tunnel", "warm = tls", "warm = off", "Envoy"]
    assert [row["client"] for row in tables["first byte"]] == 2 * clients
    for row in tables["first byte"]:
        assert (row["warm"] is None) == (row["client"] in ("bare tunnel", "Envoy"))
        assert row["client"] != "warm = off" or row["warm"] == "0 %"
        # a byte takes a round trip
        assert row["p50 ms"] >= 2 * row["each way ms"]
    assert [(row["pool_max"], row["takes"]) for row in tables["takes"]] == [(4, 10), (16, 10)] * 2


def test_idle_warm_routes_are_measured_before_and_after_their_decay(tmp_path: Path) -> None:
    rows, dials = figures_of("warm", tmp_path).values()
    assert [row["routes are"] for row in rows] == ["nothing warm", "warm", "decayed"]
    assert rows[0]["most handshakes"] == 0
    assert all(1 <= row["most handshakes"] <= MAX_DIALS for row in rows[1:])
    assert dials[0]["CPU ms"] > 0


@pytest.mark.parametrize("transport", ["http1", "http2"])
def test_cost_of_a_gigabyte_is_measured_for_the_agent_and_envoy(tmp_path: Path, transport: str) -> None:
    costs, echoes = figures_of("throughput", tmp_path, "--transport", transport).values()
    both = ["pomagent", "Envoy"]
    ways = [(1, "down"), (1, "up"), (16, "down"), (16, "up")]
    assert [(row["streams"], row["way"], row["client"]) for row in costs] == [
        (*way, one) for way in ways for one in both
    ]
    assert all(row["GB/s"] > 0 for row in costs)
    assert [(row["busy way"], row["client"]) for row in echoes] == [
        (way, one) for way in ("down", "up") for one in both
    ]
    for row in echoes:
        assert (row["longest turn ms"] is None) == (row["client"] == "Envoy")
        assert row["longest turn ms"] is None or row["longest turn ms"] >= row["longest turn CPU ms"] > 0


def test_short_sessions_are_measured_warm_and_cold(tmp_path: Path) -> None:
    (rows,) = figures_of("churn", tmp_path).values()
    assert [row["client"] for row in rows] == ["Envoy", *["pomagent"] * 4]
    cold, warm, dial, beyond = (row["CPU ms"] for row in rows[1:])
    assert min(cold, warm, dial) > 0
    assert beyond == pytest.approx(warm - dial, abs=0.02)


def test_idle_sessions_are_measured_before_and_after_they_were_busy(tmp_path: Path) -> None:
    (rows,) = figures_of("memory", tmp_path).values()
    assert [row["client"] for row in rows] == ["pomagent", "Envoy"]
    assert all(row["KB each once hot"] >= row["KB each idle"] > 0 for row in rows)
    for row in rows:
        assert row["KB each more once hot"] == pytest.approx(row["KB each once hot"] - row["KB each idle"], abs=0.11)
        assert row["growth MB"] == pytest.approx(row["after all of them MB"] - row["after half of them MB"], abs=0.11)


def test_figures_of_the_benches_are_printed_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["memory", "--quick", "--json", str(tmp_path / "memory.json")]) == 0
    table = capsys.readouterr().out
    assert bench.main(["tables", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith(table)
    assert bench.main(["plot", str(tmp_path), "-o", str(tmp_path / "plot.svg")]) == 0
    assert "An open session" in (tmp_path / "plot.svg").read_text()


def figures_of(benchmark: str, directory: Path, *arguments: str) -> dict[str, list[dict[str, Any]]]:
    figures = directory / "figures.json"
    assert bench.main([benchmark, "--quick", "--json", str(figures), *arguments]) == 0
    tables: dict[str, list[dict[str, Any]]] = json.loads(figures.read_text())["tables"]
    return tables
