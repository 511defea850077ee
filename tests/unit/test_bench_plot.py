"""The plot of the benches' figures as SVG."""

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


def test_every_figure_has_a_bar_of_its_length() -> None:
    picture = ET.fromstring(draw("a < b", ["one", "two"], [Panel("x & y", "ms", {"near": {"one": 4.0, "two": 1.0}})]))
    one, two = (rect for rect in picture.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None)
    assert float(one.attrib["width"]) == 4 * float(two.attrib["width"])
    assert [one.attrib["class"], two.attrib["class"]] == ["bar-0", "bar-1"]
    assert {"x & y", "ms", "near", "4.00", "1.00"} <= texts_of(picture)


def test_bench_has_panels_only_if_it_ran() -> None:
    texts = texts_of(ET.fromstring(plot({"throughput": THROUGHPUT})))
    assert {"A gigabyte", "16 × up", "1.25", "busy down", "2.50", "5.00"} <= texts
    assert not {"First byte", "Start", "An open session"} & texts


def test_missing_figure_has_no_bar() -> None:
    texts = texts_of(ET.fromstring(plot({"throughput": THROUGHPUT | {"throughput": [COSTS[0] | {"CPU s/GB": None}]}})))
    assert "A gigabyte" not in texts


def texts_of(picture: ET.Element) -> set[str]:
    return {text.text or "" for text in picture.iter(f"{SVG}text")}
