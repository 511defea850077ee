"""What the documents promise has the tests that they name."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_way_in_which_pomerium_cli_differs_has_a_test_or_no_counterpart() -> None:
    lines = (ROOT / "docs/from-pomerium-cli.md").read_text().splitlines()
    rows = [line.split("|")[1:4] for line in lines if line.startswith("| ")][2:]
    assert len(rows) == 20
    assert [row for row in rows if "`test_" not in row[2] and "no counterpart" not in row[1]] == []


def test_every_test_that_a_document_names_exists() -> None:
    named = {
        (path.name, name)
        for path in [ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
        for name in re.findall(r"`(test_\w+)`", path.read_text())
    }
    assert named
    known = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        known |= set(re.findall(r"def (test_\w+)", path.read_text()))
    assert {each for each in named if each[1] not in known} == set()


def test_readme_lists_every_decision_by_its_title() -> None:
    listed = dict(re.findall(r"^- \[(.+)\]\(docs/decisions/(.+)\)$", (ROOT / "README.md").read_text(), re.MULTILINE))
    titles = {path.read_text().splitlines()[0]: path.name for path in (ROOT / "docs/decisions").glob("*.md")}
    assert {f"# {name[:3]}. {title}": name for title, name in listed.items()} == titles


def test_every_decision_states_context_decision_and_consequence() -> None:
    headings = ("**Context.**", "**Decision.**", "**Consequence.**")
    decisions = {path.name: path.read_text() for path in (ROOT / "docs/decisions").glob("*.md")}
    assert [name for name, text in decisions.items() if not all(heading in text for heading in headings)] == []
