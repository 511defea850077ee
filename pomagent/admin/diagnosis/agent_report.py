"""Builds the files of the archive that come from the running agent."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gevent

from pomagent.admin.diagnosis.greenlet_dump import dump
from pomagent.admin.diagnosis.redaction import redacted_toml, scrubbed
from pomagent.admin.diagnosis.versions import versions
from pomagent.admin.status.documents import event_document
from pomagent.agent import Agent
from pomagent.log.recent import RecentEvents
from pomagent.runtime.threads import Threads
from pomagent.settings import Settings

MAX_EVENTS: Final = 1000
"""Maximum events in the archive."""
_UNSAFE: Final = re.compile(r"[^\w.-]+")


@dataclass(frozen=True, slots=True)
class ReportSources:
    """What a report is built from."""

    agent: Agent
    settings: Callable[[], Settings | None]
    """Returns the settings in effect."""
    status: Callable[[], dict[str, Any]]
    recent: RecentEvents
    environ: Mapping[str, str]
    owners: tuple[object, ...]
    """Objects from which every greenlet can be reached."""


class AgentReport:
    """Builds a fresh report for each request."""

    def __init__(self, sources: ReportSources) -> None:
        self._sources = sources
        self._threads = Threads(1)

    def files(self) -> dict[str, Any]:
        """Return ``files``: texts without secrets by their names in the archive. Blocks its greenlet."""
        sources = self._sources
        hub = gevent.get_hub()
        stacks = dump((hub, hub.parent, *sources.owners), lambda: gevent.sleep(0))
        status = sources.status()
        status.pop("events", None)
        events = [event_document(note) for note in sources.recent.latest(MAX_EVENTS)]
        settings = sources.settings()
        files = settings.files if settings else ()
        secrets = self._secrets(settings)
        return {"files": self._threads.call(_texts, stacks, status, events, files, sources.environ, secrets)}

    def _secrets(self, settings: Settings | None) -> list[str]:
        """Return the known secrets, which are removed besides anything that looks like a token."""
        tokens = [token.value.get_secret_value() for token in self._sources.agent.tokens if token.value is not None]
        gateways = {route.gateway for route in settings.routes} if settings else set()
        proxies = [gateway.proxy for gateway in gateways if gateway.proxy is not None]
        known = [proxy.credentials.get_secret_value() for proxy in proxies if proxy.credentials]
        return [*tokens, *known, *(pair.partition(":")[2] for pair in known)]


def _texts(
    stacks: str, status: dict[str, Any], events: list[dict[str, Any]], files: Iterable[tuple[Path, bytes]],
    environ: Mapping[str, str], secrets: list[str],
) -> dict[str, str]:  # fmt: skip
    texts = {
        "versions.json": json.dumps(versions(environ), indent=2) + "\n",
        "status.json": json.dumps(status, indent=2) + "\n",
        "events.jsonl": "".join(json.dumps(event) + "\n" for event in events),
        "greenlets.txt": stacks,
        **configuration(files),
    }
    return {name: scrubbed(text, secrets) for name, text in texts.items()}


def configuration(files: Iterable[tuple[Path, bytes]]) -> dict[str, str]:
    """Return the redacted files by name, in order: ``configuration/00-agent.toml``."""
    return {
        f"configuration/{number:02}-{_UNSAFE.sub('_', path.name)}": f"# {path}\n{redacted_toml(content)}"
        for number, (path, content) in enumerate(files)
    }
