"""The benchmark works; its figures are for people, on a machine that does nothing else."""

import json
from pathlib import Path

import pytest

from scripts import bench


def test_it_prints_a_row_for_each_number_of_routes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    assert bench.main(["routes", "--quick", "--json", str(figures)]) == 0
    _, title, _, header, _, *rows = capsys.readouterr().out.splitlines()
    assert title == "routes"
    assert [row.split("|")[1].strip() for row in rows] == ["10", "50"]
    document = json.loads(figures.read_text())
    assert [row["routes"] for row in document["tables"]["routes"]] == [10, 50]
    assert [name.strip() for name in header.strip("|").split("|")] == list(document["tables"]["routes"][0])
    assert document["machine"]["cpus"]
