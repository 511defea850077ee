"""Loads ``agent.toml`` and the environment into ``Settings``, or reports every problem with its line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pomagent.config.documents import Document, read_document
from pomagent.config.environment import overrides
from pomagent.config.gateways import resolve_credential, resolve_gateway
from pomagent.config.includes import IncludedFiles, names_to_watch
from pomagent.config.inputs import Inputs
from pomagent.config.listen import Listeners
from pomagent.config.locations import locator
from pomagent.config.mistakes import Mistakes
from pomagent.config.model import AgentTable
from pomagent.config.references import References
from pomagent.config.resolve import (
    RouteResolver,
    agent_settings,
    check_pool,
    drain_settings,
    status_settings,
)
from pomagent.config.tables import TableReader, Tables
from pomagent.errors import ConfigError, Problem
from pomagent.runtime.files import FileError
from pomagent.settings import Settings

StoredFiles = Sequence[tuple[Path, bytes]]


WAITING = "until this is mended, its routes refuse their clients"
"""The end of a warning about an input that is missing at the start."""


class InputsMissing(ConfigError):
    """Credentials or certificates cannot be used yet, and nothing else is wrong: other routes can be served."""

    def __init__(self, error: ConfigError, settings: Settings) -> None:
        super().__init__(error.problems, error.watched, error.patterns)
        self.settings = settings
        """Settings under which the routes that need the inputs fail to dial."""


def load(path: Path, environ: Mapping[str, str], stored: StoredFiles = ()) -> Settings:
    """Return the settings of the file and everything it names. Blocks. Raises ConfigError with every problem.

    The error is InputsMissing if only the content of credentials or certificates is unusable.

    ``stored`` holds TOML files of an earlier load, which replace the main file and all its includes.
    """
    return _Load(path, environ, stored).settings()


class _Load:
    """One load: its documents, its inputs and their problems."""

    def __init__(self, path: Path, environ: Mapping[str, str], stored: StoredFiles) -> None:
        self._path = path
        self._environ = environ
        self._stored = [file for file, _ in stored]
        self._inputs = Inputs(dict(stored))
        self._patterns: tuple[str, ...] = ()
        self._mistakes = Mistakes()
        self._documents: list[Document] = []
        self._is_complete = True

    def settings(self) -> Settings:
        try:
            self._add_document(self._path)
        except FileError as unreadable:
            self._mistakes.add([Problem(self._path, 0, "", unreadable.reason)])
        if error := self._error():
            raise error
        self._add_included()
        tables = self._tables()
        if not self._documents[0].text.strip() and not tables.agent.table.allow_empty:
            raise ConfigError([Problem(self._path, 0, "", "is empty; a file without routes needs agent.allow_empty")])
        settings = self._resolved(tables)
        if (error := self._error()) is None:
            return settings
        if error.may_pass and self._is_complete:
            raise InputsMissing(error, settings)
        raise error

    def _error(self) -> ConfigError | None:
        problems = self._mistakes.problems(self._documents)
        return ConfigError(problems, self._inputs.watched, self._patterns) if problems else None

    def _add_document(self, path: Path) -> None:
        """Read and parse a file. Raises FileError if it cannot be read."""
        document = read_document(path, self._inputs, order=len(self._documents))
        if isinstance(document, Problem):
            self._mistakes.add([document])
            self._is_complete = False
        else:
            self._documents.append(document)

    def _add_included(self) -> None:
        overlay, _ = overrides(self._environ, _token_variables(self._documents))
        agent = TableReader(self._documents, overlay, Mistakes()).single("agent", AgentTable)
        self._patterns = names_to_watch(agent.table.include)
        if self._stored:
            for path in self._stored[1:]:
                self._add_document(path)
            return
        files = IncludedFiles(self._documents[0], self._inputs)
        unreadable = files.unreadable
        for pattern in agent.table.include:
            try:
                paths = files.of(pattern)
            except ValueError:
                self._mistakes.problem(agent.place, "include", "has an element that is not a pattern of file names")
                continue
            for path in paths:
                try:
                    self._add_document(path)
                except FileError as error:
                    unreadable.append(error)
        self._is_complete &= not unreadable
        for reason in unreadable:
            self._mistakes.problem(agent.place, "include", str(reason), may_pass=True)

    def _tables(self) -> Tables:
        overlay, misnamed = overrides(self._environ, _token_variables(self._documents))
        self._mistakes.add(misnamed)
        return TableReader(self._documents, overlay, self._mistakes).read()

    def _resolved(self, tables: Tables) -> Settings:
        mistakes, inputs, environ = self._mistakes, self._inputs, self._environ
        listeners = Listeners()
        gateways = {
            name: resolve_gateway(name, entry, environ, mistakes, inputs) for name, entry in tables.gateways.items()
        }
        credentials = {
            name: resolve_credential(name, entry, environ, mistakes, inputs)
            for name, entry in tables.credentials.items()
        }
        references = References(tables, gateways, credentials, mistakes, is_complete=self._is_complete)
        references.check_gateways()
        check_pool(tables.defaults, mistakes)
        status = status_settings(tables.status, listeners, environ, mistakes)
        agent = agent_settings(tables.agent, mistakes)
        resolver = RouteResolver(references, listeners, mistakes)
        routes = tuple(route for entry in tables.routes if (route := resolver.resolve(entry)))
        self._check_not_empty(tables)
        return Settings(
            path=self._path.absolute(),
            agent=agent,
            status=status,
            drain=drain_settings(tables.drain),
            routes=routes,
            watched=inputs.watched,
            patterns=self._patterns,
            gateways=tuple((gateway, references.credential_of(name)) for name, gateway in gateways.items() if gateway),
            files=tuple((document.path.absolute(), document.content) for document in self._documents),
            sha=self._sha(),
            warnings=(*mistakes.warnings(self._documents), *(f"{problem}; {WAITING}" for problem in self._missing())),
            waits_for=self._missing(),
            locate=locator(tables, self._path),
        )

    def _missing(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self._mistakes.problems(self._documents) if problem.may_pass)

    def _sha(self) -> str:
        """Return the hash of all inputs. What is wrong with a missing one is part of it."""
        for problem in self._missing():
            self._inputs.add(self._path, str(problem).encode(errors="surrogateescape"))
        return self._inputs.sha

    def _check_not_empty(self, tables: Tables) -> None:
        """Report empty files, because a file that is being written must not stop all routes."""
        if tables.agent.table.allow_empty or not self._is_complete:
            return
        for document in self._documents[1:]:
            if not document.text.strip():
                self._mistakes.add([Problem(document.path, 0, "", "is empty; remove it or comment out its routes")])
        if not tables.routes and not self._mentions_routes():
            self._mistakes.add(
                [Problem(self._path, 0, "routes", "has no [[routes]]; expected one, or agent.allow_empty = true")]
            )

    def _mentions_routes(self) -> bool:
        return any(document.data.get("routes", []) != [] for document in self._documents)


def _token_variables(documents: Iterable[Document]) -> frozenset[str]:
    """Return the variables that hold tokens and therefore set no keys."""
    return frozenset(name for document in documents for name in _env_sources(document.data.get("credentials")))


def _env_sources(credentials: Any) -> Iterable[str]:
    tables = credentials.values() if isinstance(credentials, dict) else ()
    return [table["env"] for table in tables if isinstance(table, dict) and isinstance(table.get("env"), str)]
