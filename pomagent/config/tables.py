"""Validates the tables of all files and keeps their positions.

Every table is validated separately. One with a wrong key still yields an entry, so that problems of its other keys are
reported in the same run. ``Entry.has`` returns whether a key can be used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from pomagent.config.documents import Document, Place
from pomagent.config.messages import describe, did_you_mean, sentence
from pomagent.config.mistakes import Mistakes
from pomagent.config.model import (
    AgentFile,
    AgentTable,
    CredentialTable,
    DrainTable,
    GatewayTable,
    RouteDefaults,
    RouteTable,
    StatusTable,
    Table,
)
from pomagent.config.value_types import NAME_PATTERN
from pomagent.protocol.route_url import AddressError, RouteUrl, parse_route_url

T = TypeVar("T", bound=Table)

INCLUDABLE = frozenset({"routes", "gateways", "credentials"})
_NOT_GIVEN = "-"
"""Replaces a required value that was reported as missing or wrong. It is never used."""
_NAME = re.compile(NAME_PATTERN)


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One table of the file."""

    table: T
    place: Place
    given: Mapping[str, Any]
    """The values of the file and the environment, without defaults."""
    wrong: frozenset[str] = frozenset()
    """Keys that were reported already. Their values must not be used."""

    def has(self, key: str) -> bool:
        return key not in self.wrong


@dataclass(frozen=True, slots=True)
class RouteEntry(Entry[RouteTable]):
    """One ``[[routes]]`` entry. ``url`` is its ``from``, or the error in it."""

    name: str = ""
    url: RouteUrl | AddressError = field(default_factory=lambda: AddressError(""))


@dataclass(frozen=True, slots=True)
class Tables:
    """All tables of all files."""

    agent: Entry[AgentTable]
    status: Entry[StatusTable]
    drain: Entry[DrainTable]
    defaults: Entry[RouteDefaults]
    gateways: Mapping[str, Entry[GatewayTable]]
    credentials: Mapping[str, Entry[CredentialTable]]
    routes: tuple[RouteEntry, ...]


class TableReader:
    """Validates the tables of several documents. The first one is the main file."""

    def __init__(self, documents: list[Document], overlay: Mapping[str, Mapping[str, Any]], mistakes: Mistakes) -> None:
        self._documents = documents
        self._overlay = overlay
        self._mistakes = mistakes

    def read(self) -> Tables:
        """Return all tables and report their problems."""
        for document in self._documents:
            self._report_unknown_tables(document)
        defaults = self.single("defaults", RouteDefaults)
        return Tables(
            self.single("agent", AgentTable),
            self.single("status", StatusTable),
            self.single("drain", DrainTable),
            defaults,
            dict(self._named("gateways", GatewayTable)),
            dict(self._named("credentials", CredentialTable)),
            tuple(self._routes(defaults)),
        )

    def single(self, name: str, model: type[T]) -> Entry[T]:
        """Return a table that only the main file can have, and report its problems."""
        main, overlay = self._documents[0], self._overlay.get(name, {})
        place = Place(main, (name,), name, frozenset(overlay))
        given = main.data.get(name, {})
        if not isinstance(given, dict):
            self._mistakes.problem(place, "", f"is {describe(given)}; expected a table: [{name}]")
            given = {}
        return self._entry(model, {**given, **overlay}, place)

    def _named(self, kind: str, model: type[T]) -> Iterator[tuple[str, Entry[T]]]:
        declared: dict[str, Place] = {}
        overlays = dict(self._overlay.get(kind, {}))
        for document in self._documents:
            for name, given in self._tables_by_name(document, kind):
                overlay = overlays.pop(name, {})
                place = Place(document, (kind, name), f"{kind}.{name}", frozenset(overlay))
                if name in declared:
                    first = declared[name].problem("", "")
                    self._mistakes.problem(place, "", f"is already declared at {first.path}:{first.line}")
                elif not _NAME.fullmatch(name):
                    self._mistakes.problem(place, "", "has an invalid name; expected a-z 0-9 - _ . only")
                else:
                    declared[name] = place
                    yield name, self._entry(model, {**given, **overlay}, place)
        for name, overlay in overlays.items():
            place = Place(
                self._documents[0], (kind, name), f"{kind}.{name}", frozenset({*overlay, *model.model_fields, ""})
            )
            yield name, self._entry(model, overlay, place)

    def _tables_by_name(self, document: Document, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        tables = document.data.get(kind, {})
        if not isinstance(tables, dict):
            message = f"is {describe(tables)}; expected tables with names: [{kind}.NAME]"
            self._mistakes.problem(Place(document, (kind,), kind), "", message)
            return
        for name, given in tables.items():
            if isinstance(given, dict):
                yield name, given
            else:
                message = f"is {describe(given)}; expected a table: [{kind}.NAME]"
                self._mistakes.problem(Place(document, (kind,), kind), name, message)

    def _routes(self, defaults: Entry[RouteDefaults]) -> Iterator[RouteEntry]:
        inherited = {k: v for k, v in defaults.given.items() if k in RouteDefaults.model_fields and defaults.has(k)}
        for document in self._documents:
            routes = document.data.get("routes", [])
            if not isinstance(routes, list):
                message = f"is {describe(routes)}; expected an array of tables: [[routes]]"
                self._mistakes.problem(Place(document, ("routes",), "routes"), "", message)
                continue
            for index, given in enumerate(routes):
                if isinstance(given, dict):
                    yield self._route(document, index, given, inherited)
                else:
                    place = Place(document, ("routes", index), f"routes.#{index + 1}")
                    self._mistakes.problem(place, "", f"is {describe(given)}; expected a table: [[routes]]")

    def _route(self, document: Document, index: int, given: dict[str, Any], inherited: dict[str, Any]) -> RouteEntry:
        url = _route_url(given.get("from"))
        name = given.get("name")
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            name = default_name(url) if isinstance(url, RouteUrl) else f"#{index + 1}"
        place = Place(document, ("routes", index), f"routes.{name}")
        entry = self._entry(RouteTable, {**inherited, **given}, place)
        return RouteEntry(entry.table, place, given, entry.wrong, name, url)

    def _entry(self, model: type[T], given: dict[str, Any], place: Place) -> Entry[T]:
        try:
            return Entry(model.model_validate(given), place, given)
        except ValidationError as error:
            wrong = self._report(error, model, given, place)
        kept = {key: value for key, value in given.items() if key not in wrong}
        required = {field.alias or key for key, field in model.model_fields.items() if field.is_required()}
        stand_in = dict.fromkeys(required & wrong, _NOT_GIVEN)
        return Entry(model.model_validate({**kept, **stand_in}), place, given, wrong)

    def _report(
        self, error: ValidationError, model: type[Table], given: dict[str, Any], place: Place
    ) -> frozenset[str]:
        wrong: set[str] = set()
        for detail in error.errors(include_url=False, include_input=False):
            key = str(detail["loc"][0])
            if key not in wrong:  # a union reports one error for each of its types
                self._mistakes.problem(place, key, sentence(detail, model, given.get(key)))
            wrong.add(key)
        return frozenset(wrong)

    def _report_unknown_tables(self, document: Document) -> None:
        place = Place(document, (), "")
        is_main = document is self._documents[0]
        known = AgentFile.model_fields if is_main else INCLUDABLE
        for name in document.data:
            if name in known:
                continue
            if name in AgentFile.model_fields:
                message = "belongs in the main file; an included one holds only routes, gateways and credentials"
            else:
                message = f"there is no such table{did_you_mean(name, known)}"
            self._mistakes.problem(place, name, message)


def default_name(url: RouteUrl) -> str:
    """Return the name of a route that has none: its destination, such as ``redis.example.com-6379``."""
    name = f"{url.destination.host}-{url.destination.port}".replace(":", "-")
    return name.lstrip("-_.")  # ::1 and _service begin with them


def _route_url(text: object) -> RouteUrl | AddressError:
    try:
        # Clear text is allowed by the gateway's table: References checks it.
        return parse_route_url(text, clear_text=True) if isinstance(text, str) else AddressError("")
    except AddressError as error:
        return error
