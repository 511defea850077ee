"""docs/architecture.md is held to the code: floors, charters and every module that it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.unit.test_layering import FLOORS, ROOT

DOCUMENT = (ROOT.parent / "docs" / "architecture.md").read_text()
FLOOR = re.compile(r"^\| (\d+) \| (.+?) \|", re.MULTILINE)
PATH = re.compile(r"`([a-z_0-9/]+\.py|[a-z_0-9/]+/)`")


def test_the_table_of_floors_is_the_one_that_the_imports_are_held_to() -> None:
    rows = {int(number): set(re.findall(r"`(\w+?)(?:/|\.py)`", names)) for number, names in FLOOR.findall(DOCUMENT)}
    assert rows == {number: floor for number, floor in enumerate(FLOORS) if number}


@pytest.mark.parametrize("path", sorted(set(PATH.findall(DOCUMENT))))
def test_every_module_that_is_named_exists(path: str) -> None:
    assert any((root / path).exists() for root in (ROOT, ROOT.parent)), path


@pytest.mark.parametrize("package", sorted(path.parent.name for path in ROOT.glob("*/__init__.py")))
def test_every_package_has_its_charter_in_the_table(package: str) -> None:
    charter = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text()))
    assert charter
    assert Path(f"`{package}/`").name  # the row names the package with its slash
    assert f"`{package}/`" in DOCUMENT
