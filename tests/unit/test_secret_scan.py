"""The secret scan finds secrets wherever a test shows them, and redacts its own report."""

import ast
import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gateway import minted
from tests.support.agent import processes

TESTS = Path(__file__).parents[1]
SAMPLE = TESTS / "data/secret_scan/every_way_to_show_a_token.py"
NAMES = [node.name for node in ast.parse(SAMPLE.read_text()).body if isinstance(node, ast.FunctionDef)]
SHOWN = [name for name in NAMES if name.startswith("test_shown_")]
HIDDEN = [name for name in NAMES if name.startswith("test_hidden_")]
WORKERS = {"in this process": [], "in workers": ["-n", "2"]}
if importlib.util.find_spec("xdist") is None:
    del WORKERS["in workers"]

STARTERS = {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}


@dataclass
class Run:
    """The result of one run of the sample tests."""

    output: str
    tokens: list[str]

    def line(self, outcome: str, name: str) -> bool:
        return re.search(rf"^{outcome} \S*::{name}\b", self.output, re.MULTILINE) is not None


@pytest.fixture(scope="module", params=WORKERS)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("sample")
    (directory / "conftest.py").write_text("from tests.support.inspection.secret_scan import *\n")
    (directory / "test_sample.py").write_text(SAMPLE.read_text())
    (directory / "pytest.ini").write_text("[pytest]\n")
    told = directory / "told"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MINTED_"))}
    done = processes.run(
        [sys.executable, "-m", "pytest", "-rA", *WORKERS[request.param], str(directory)],
        capture_output=True, text=True, cwd=TESTS.parent, env=environment | {"TOLD_FILE": str(told)},
    )  # fmt: skip
    return Run(done.stdout + done.stderr, told.read_text().split())


@pytest.mark.parametrize("name", SHOWN)
def test_sample_that_shows_a_token_fails(sample: Run, name: str) -> None:
    assert sample.line("FAILED", name) or sample.line("ERROR", name), sample.output


@pytest.mark.parametrize("name", HIDDEN[:-1])
def test_sample_that_shows_no_token_passes(sample: Run, name: str) -> None:
    assert sample.line("PASSED", name), sample.output


def test_each_failure_states_its_reason(sample: Run) -> None:
    assert len(re.findall(r"^a secret is shown in:$", sample.output, re.MULTILINE)) >= len(SHOWN)


def test_report_shows_no_token(sample: Run) -> None:
    assert len(sample.tokens) == len(NAMES) - len([name for name in NAMES if not name.startswith("test_")]) - 1
    assert not [token for token in sample.tokens if token.rpartition(".")[2][:20] in sample.output]


def test_failure_for_another_reason_is_reported_unchanged(sample: Run) -> None:
    assert sample.line("FAILED", HIDDEN[-1])
    assert "the failure that is meant" in sample.output


def test_secret_that_is_too_short_to_search_for_is_rejected() -> None:
    with pytest.raises(ValueError, match="too short"):
        minted.remember("header.claims." + "s" * (minted.PIECE + minted.STRIDE - 2))


def test_every_process_of_the_tests_is_started_by_the_searching_helper() -> None:
    elsewhere = [
        f"{path.relative_to(TESTS)}:{node.lineno}"
        for path in TESTS.rglob("*.py")
        if path not in (SAMPLE, TESTS / "processes.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and _starts_a_process(node.func)
    ]
    assert elsewhere == []


def _starts_a_process(function: ast.expr) -> bool:
    if not isinstance(function, ast.Attribute) or not isinstance(function.value, ast.Name):
        return False
    module, name = function.value.id, function.attr
    return (
        (module == "subprocess" and name in STARTERS)
        or (module == "pty" and name in {"spawn", "fork"})
        or (module == "os" and (name in {"system", "popen", "fork"} or name.startswith(("spawn", "posix_spawn"))))
    )
