"""Which files ``agent.include`` names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pomagent.config.documents import Document
from pomagent.config.inputs import Inputs

_MAGIC = frozenset("*?[")


def included_files(main: Document, patterns: list[str], inputs: Inputs) -> dict[str, list[Path]]:
    """Lists the files of each pattern, each file once, and watches the directories where more may appear. Blocks.

    Raises ValueError if a pattern is not one.
    """
    seen = {main.path.absolute().resolve()}
    found: dict[str, list[Path]] = {}
    for pattern in patterns:
        found[pattern] = []
        for path in _matches(main.path.parent, pattern, inputs):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                found[pattern].append(path)
    return found


def is_literal(pattern: str) -> bool:
    """Whether the pattern names one file, which then has to exist."""
    return not _MAGIC.intersection(pattern)


def _matches(base: Path, pattern: str, inputs: Inputs) -> Iterator[Path]:
    whole = base / pattern
    if is_literal(pattern):
        inputs.watch(whole.parent)
        yield whole
        return
    fixed = _part_without_magic(whole)
    relative = whole.relative_to(fixed)
    inputs.watch(fixed)
    for directory in fixed.glob(str(relative.parent)) if relative.parent != Path() else ():
        inputs.watch(directory)
    for path in sorted(fixed.glob(str(relative))):
        # editors' locks and backups (.#orders.toml) are not meant, as in a shell
        if path.is_file() and (not path.name.startswith(".") or relative.name.startswith(".")):
            inputs.watch(path.parent)
            yield path


def _part_without_magic(path: Path) -> Path:
    fixed = Path(path.anchor)
    for part in path.parent.relative_to(path.anchor).parts:
        if not is_literal(part):
            break
        fixed /= part
    return fixed
