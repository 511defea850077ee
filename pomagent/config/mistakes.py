"""Collects the problems of a load, which reject the file, and its warnings, which do not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pomagent.config.documents import Document, Place
from pomagent.errors import Problem


class Mistakes:
    """Problems and warnings, added in any order and returned in the order of the files."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._warnings: list[Problem] = []

    def problem(self, place: Place, key: str, message: str, *, may_pass: bool = False) -> None:
        self._problems.append(replace(place.problem(key, message), may_pass=may_pass))

    def warning(self, place: Place, key: str, message: str) -> None:
        self._warnings.append(place.problem(key, message))

    def add(self, problems: Iterable[Problem]) -> None:
        self._problems.extend(problems)

    def passing(self, place: Place) -> str:
        """Return the messages about a table that may pass without an edit."""
        prefix = f"{place.label}."
        return "; ".join(p.message for p in self._problems if p.may_pass and p.key.startswith(prefix))

    def problems(self, documents: Iterable[Document]) -> tuple[Problem, ...]:
        return _in_order(self._problems, documents)

    def warnings(self, documents: Iterable[Document]) -> tuple[str, ...]:
        return tuple(map(str, _in_order(self._warnings, documents)))


def _in_order(found: list[Problem], documents: Iterable[Document]) -> tuple[Problem, ...]:
    """Return problems sorted by file and line, those without a file last."""
    order = {document.path: document.order for document in documents}
    last = len(order)
    return tuple(sorted(found, key=lambda p: (order.get(p.path, last) if p.path else last + 1, p.line)))
