"""The plot of the benches' figures."""

import xml.etree.ElementTree as ET

from scripts.bench_bars import Panel, draw
from scripts.bench_plot import plot

SVG = "{http://www.w3.org/2000/svg}"
ECHOES = [
    {"busy way": "down", "client": "pomagent", "p50 ms": 2.5},
    {"busy way": "down", "client": "Envoy", "p50 ms": 5.0},
]
COSTS = [{"streams": 16, "way": "up", "client": "pomagent", "CPU s/GB": 1.25}]
THROUGHPUT = {"throughput": COSTS, "an echo": ECHOES}


def test_every_figure_stands_beside_a_bar_as_long_as_it_is() -> None:
    picture = ET.fromstring(draw("a < b", ["one", "two"], [Panel("x & y", "ms", {"near": {"one": 4.0, "two": 1.0}})]))
    one, two = (rect for rect in picture.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None)
    assert float(one.attrib["width"]) == 4 * float(two.attrib["width"])
    assert [one.attrib["class"], two.attrib["class"]] == ["bar-0", "bar-1"]
    assert {"x & y", "ms", "near", "4.00", "1.00"} <= texts_of(picture)


def test_a_bench_that_has_run_has_its_panels_and_one_that_has_not_has_none() -> None:
    texts = texts_of(ET.fromstring(plot({"throughput": THROUGHPUT})))
    assert {"A gigabyte", "16 × up", "1.25", "busy down", "2.50", "5.00"} <= texts
    assert not {"First byte", "Start", "An open session"} & texts


def test_what_was_not_measured_has_no_bar() -> None:
    texts = texts_of(ET.fromstring(plot({"throughput": THROUGHPUT | {"throughput": [COSTS[0] | {"CPU s/GB": None}]}})))
    assert "A gigabyte" not in texts


def texts_of(picture: ET.Element) -> set[str]:
    return {text.text or "" for text in picture.iter(f"{SVG}text")}
