"""Counts habits that make prose hard to read, and fails where a scope has more of them than good peers have.

Run it as ``python -m scripts.language [--by-file] [PATH...]``; without paths it reads the package, scripts, tests and
units. It counts in docstrings, comments and sentences in string literals (errors, help texts, descriptions), per 1,000
words. The limits are the worst of h11, httpcore, psycopg_pool and structlog, counted by this script
(``docs/decisions/017-plain-english.md``).
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCOPES = {"pomagent": ["pomagent"], "scripts": ["scripts"], "tests": ["tests"], "systemd": ["systemd"]}
TICS = {
    "tell/say": r"\b(?:tell|tells|told|telling|say|says|said|saying)\b",
    "who/whoever": r"\b(?:who|whoever|whom|whose)\b",
    "somebody/nobody": r"\b(?:some|any|no|every)body\b",
    "hear/want/bear": r"\b(?:hears?|heard|wants?|wanted|bears?|has it that)\b",
    "so long/often/many": r"\bso (?:long|often|many|much)\b(?! as\b)",
    "fragments": r"^(?:Of|For|By|From|To|With|Without|At|Until|Beyond|Between)\b",
    "semicolons": r";",
}
"""Habits as patterns.

``fragments`` match at the beginning of a text only. ``semicolons`` are counted in docstrings and comments only: in an
error they separate the problem from its remedy.
"""
LIMITS = {
    "tell/say": 1.6,
    "who/whoever": 0.3,
    "somebody/nobody": 0.0,
    "hear/want/bear": 1.9,
    "so long/often/many": 0.1,
    "fragments": 0.7,
    "semicolons": 3.3,
}
PRONOUN_TEST = re.compile(
    r"def test_(?:its?|they|their|them|he|who|whoever|whom|whose|what|whatever"
    r"|nobody|somebody|everybody|one_(?:that|of|who)|those|others)_"
)
"""A test whose name has no noun for a subject."""
SENTENCE = re.compile(r"[A-Za-z’']+(?: [A-Za-z’'(]+){3,}")
CODE = re.compile(r"``[^`]*``|`[^`]*`|https?://\S+|\bfmt: \w+|\bnoqa\b.*|\btype: ignore\S*|%\([a-z]+\)s|\{[^}]*\}")


def texts(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield the texts of a file, and whether each is output of the program rather than documentation of it."""
    source = path.read_text()
    if path.suffix != ".py":
        yield from ((line.lstrip("# "), False) for line in source.splitlines() if line.lstrip().startswith("#"))
        return
    tree = ast.parse(source)
    statements = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SENTENCE.search(node.value):
            yield node.value, node not in statements
    yield from ((comment, False) for comment in _comments(source))


def _comments(source: str) -> Iterator[str]:
    """Yield comments. Consecutive lines are one text."""
    block: list[str] = []
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or token.string.startswith("#!"):
            continue
        if token.start[0] != last + 1 and block:
            yield " ".join(block)
            block = []
        block.append(token.string.lstrip("# "))
        last = token.start[0]
    if block:
        yield " ".join(block)


def count(found: Iterable[tuple[str, bool]]) -> tuple[int, Counter[str]]:
    """Return the number of words and the occurrences of each habit."""
    words, tics = 0, Counter[str]()
    for text, is_spoken in found:
        plain = CODE.sub(" ", text).strip()
        words += len(re.findall(r"[A-Za-z’']+", plain))
        for name, pattern in TICS.items():
            if name == "semicolons" and is_spoken:
                continue
            tics[name] += len(re.findall(pattern, plain, re.IGNORECASE if name != "fragments" else 0))
    return words, tics


def rates(paths: Iterable[Path]) -> tuple[int, dict[str, float]]:
    """Return the number of words and the occurrences of each habit per 1,000 words."""
    words, tics = count(text for path in paths for text in texts(path))
    return words, {name: 1000 * tics[name] / max(words, 1) for name in TICS}


def files(root: Path) -> list[Path]:
    """Return the files with prose below a directory, or the file itself."""
    if root.is_file():
        return [root]
    kinds = {".py", ".service", ".socket", ".conf"}
    return sorted(path for path in root.rglob("*") if path.suffix in kinds and "__pycache__" not in path.parts)


def main(arguments: list[str]) -> int:
    """Print the rates and return 1 if one is over its limit."""
    by_file = "--by-file" in arguments
    named = [Path(argument) for argument in arguments if not argument.startswith("-")]
    scopes = {str(path): [path] for path in named} or {
        name: [ROOT / path for path in paths] for name, paths in SCOPES.items()
    }
    failed = False
    print(f"{'per 1,000 words':24}" + "".join(f"{name:>20}" for name in TICS))
    print(f"{'limit':24}" + "".join(f"{LIMITS[name]:20.1f}" for name in TICS))
    for scope, roots in scopes.items():
        everything = [path for root in roots for path in files(root)]
        for label, paths in [(scope, everything), *([(str(p), [p]) for p in everything] if by_file else [])]:
            words, found = rates(paths)
            over = [name for name in TICS if found[name] > LIMITS[name]]
            failed = failed or (bool(over) and label == scope)
            print(f"{label[-24:]:24}" + "".join(f"{found[n]:19.1f}{'!' if n in over else ' '}" for n in TICS), words)
    nameless = [f"{path}: {name}" for path in files(ROOT / "tests") for name in PRONOUN_TEST.findall(path.read_text())]
    print(f"tests named after a pronoun: {len(nameless)} (limit 0)")
    return int(failed or bool(nameless))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
