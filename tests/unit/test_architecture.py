"""docs/architecture.md and CONTRIBUTING.md match the code: floors, charters and every module that they name."""

from __future__ import annotations

import ast
import re

import pytest

from tests.unit.test_layering import FLOORS, ROOT

DOCUMENT = (ROOT.parent / "docs" / "architecture.md").read_text()
CONTRIBUTING = (ROOT.parent / "CONTRIBUTING.md").read_text()
DECISIONS = "".join(path.read_text() for path in sorted((ROOT.parent / "docs" / "decisions").glob("*.md")))
FLOOR = re.compile(r"^\| (\d+) \| (.+?) \|", re.MULTILINE)
PATH = re.compile(r"`([a-z_0-9/]+\.py|[a-z_0-9/]+/)`")
LEAST_DECISIONS = 30


def test_table_of_floors_is_the_one_that_the_imports_are_held_to() -> None:
    rows = {int(number): set(re.findall(r"`(\w+?)(?:/|\.py)`", names)) for number, names in FLOOR.findall(DOCUMENT)}
    assert rows == {number: floor for number, floor in enumerate(FLOORS) if number}


@pytest.mark.parametrize("path", sorted(set(PATH.findall(DOCUMENT + CONTRIBUTING + DECISIONS))))
def test_every_named_module_exists(path: str) -> None:
    assert any((root / path).exists() for root in (ROOT, ROOT.parent)), path


def test_index_of_decisions_names_a_module_in_every_row() -> None:
    _, _, index = DOCUMENT.partition("## Where is … decided\n")
    rows = [row for row in index.splitlines() if row.startswith("| ")][2:]
    assert len(rows) >= LEAST_DECISIONS
    assert [row for row in rows if not PATH.findall(row.split("|")[2])] == []


@pytest.mark.parametrize("package", sorted(path.parent.name for path in ROOT.glob("*/__init__.py")))
def test_every_package_has_a_charter_and_a_place_in_the_table(package: str) -> None:
    assert ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text()))
    assert f"`{package}/`" in DOCUMENT
