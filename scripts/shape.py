"""Holds the package to its shape: short modules, short functions, constructors with few parameters.

Run it as ``python -m scripts.shape``. It prints the figures and exits with 1 where a limit is exceeded by anything that
is not an exception named here. The linter limits complexity (``C901`` in ``pyproject.toml``).
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent / "pomagent"
MODULE_LINES, EXCEPTIONAL_LINES = 250, 300
MEDIAN_LINES, P90_LINES = 6, 15
PARAMETERS = 7
LONG_MODULES = {
    "agent.py": "the one place that puts settings to work",
    "config/model.py": "every key of agent.toml, in the order of the file",
    "credentials/edge_api.py": "every request to the gateway's HTTP API and every answer to it",
    "errors.py": "the one hierarchy of errors",
    "pool/dialing.py": "one dial from its start to the verdict that it brings",
    "reload/reloader.py": "one edit from its notice to its outcome",
}
"""Modules of up to 300 lines, and the reason why splitting each would hide more than it shows."""
LONG_CONSTRUCTORS = {
    "admin/status/resources.py:StatusResources": "each parameter is one thing that the status shows",
}
"""Constructors with more than seven parameters, and the reason."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def length(function: Function) -> int:
    """Return the lines of code of a function, without signature, docstring, blank lines and comments."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return len({line for statement in body for node in ast.walk(statement) for line in _lines(node)})


def _lines(node: ast.AST) -> Iterator[int]:
    if isinstance(node, ast.stmt | ast.expr | ast.excepthandler | ast.match_case):
        start, end = getattr(node, "lineno", None), getattr(node, "end_lineno", None)
        if start is not None and end is not None:
            yield from (start, end)


def parameters(function: Function) -> int:
    """Return the number of parameters besides ``self``."""
    given = function.args
    return len(given.posonlyargs + given.args + given.kwonlyargs) - 1


def main() -> int:
    """Print the figures and return 1 if a limit is exceeded."""
    problems: list[str] = []
    lengths: list[int] = []
    for path in sorted(ROOT.rglob("*.py")):
        name = str(path.relative_to(ROOT))
        lines = path.read_text().count("\n")
        if lines > (EXCEPTIONAL_LINES if name in LONG_MODULES else MODULE_LINES):
            problems.append(f"{name}: {lines} lines; split it, {MODULE_LINES} are the limit")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                problems += _constructor(name, node)
            elif isinstance(node, Function):
                lengths.append(length(node))
    median, p90 = statistics.median(lengths), statistics.quantiles(lengths, n=10)[-1]
    print(f"{len(lengths)} functions: median {median:g} lines (limit {MEDIAN_LINES}), p90 {p90:g} (limit {P90_LINES})")
    if median > MEDIAN_LINES or p90 > P90_LINES:
        problems.append("functions are too long; split the longest ones")
    for problem in problems:
        print(problem)
    return int(bool(problems))


def _constructor(module: str, node: ast.ClassDef) -> Iterator[str]:
    for item in node.body:
        is_constructor = isinstance(item, ast.FunctionDef) and item.name == "__init__"
        if is_constructor and f"{module}:{node.name}" not in LONG_CONSTRUCTORS and parameters(item) > PARAMETERS:
            yield f"{module}: {node.name} takes {parameters(item)} parameters; {PARAMETERS} are the limit"


if __name__ == "__main__":
    sys.exit(main())
