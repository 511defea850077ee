"""Finds the files that ``agent.include`` names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pomagent.config.documents import Document
from pomagent.config.inputs import Inputs

_MAGIC = frozenset("*?[")


def included_files(main: Document, patterns: list[str], inputs: Inputs) -> dict[str, list[Path]]:
    """Return the files of each pattern, each file once, and watch the directories where more may appear. Blocks.

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


def names_to_watch(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns of directory entries that can affect the include: files, and directories on their paths."""
    return tuple(dict.fromkeys(name for pattern in patterns for name in _names_after_fixed(Path(pattern))))


def _names_after_fixed(pattern: Path) -> Sequence[str]:
    first = next((i for i, part in enumerate(pattern.parts) if not is_literal(part)), len(pattern.parts) - 1)
    return pattern.parts[max(first, 0) :]


def missing_directory(base: Path, pattern: str) -> Path | None:
    """Return the directory that a pattern searches if it does not exist."""
    fixed = _part_without_magic(base / pattern)
    return None if fixed.is_dir() else fixed


def is_literal(pattern: str) -> bool:
    """Return whether the pattern names one file, which then must exist."""
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
        # As in a shell, a pattern does not match hidden files: editors' locks and backups (.#orders.toml).
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
