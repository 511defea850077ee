"""Changes to a running agent that are not in its file: sessions, paused routes, back-off, the log level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import gevent

from pomagent.admin.control.server import BodyHandler, Declined, Handler
from pomagent.admin.json_object import JsonObject
from pomagent.agent import Agent
from pomagent.forwarder import ABORT_TIMEOUT_S, Forwarder
from pomagent.log.verbosity import LEVELS, Verbosity
from pomagent.sessions.ends import CLOSED

POLL_INTERVAL_S: Final = 0.01
"""Seconds between checks whether closed sessions have ended."""
MAX_FOR_S: Final = 7 * 86_400
"""Maximum seconds for a temporary log level. A permanent one belongs in agent.toml."""


class OperatorActions:
    """Carries out what commands request over the control socket. All methods raise Declined."""

    def __init__(self, agent: Agent, verbosity: Verbosity) -> None:
        self._agent = agent
        self._verbosity = verbosity

    @property
    def get_handlers(self) -> Mapping[str, Handler]:
        """Handlers of GET requests by URL path. They change nothing."""
        return {"/log-level": self.level}

    @property
    def body_handlers(self) -> Mapping[str, BodyHandler]:
        """Handlers of POST requests by URL path."""
        return {
            "/close": self.close, "/pause": self.pause, "/resume": self.resume, "/retry": self.retry,
            "/log-level": self.log_level,
        }  # fmt: skip

    def close(self, body: JsonObject) -> JsonObject:
        """End the sessions numbered in ``sessions``, or all sessions of ``routes``, and wait until they end. Blocks."""
        names, numbers = set(_names(body)), _numbers(body)
        if bool(names) == bool(numbers):
            raise Declined("name either sessions or routes")
        forwarders = self._agent.forwarders()
        _expect(names, {forwarder.route.name for forwarder in forwarders}, "no running route is named")
        _expect(numbers, self._running_numbers(), "no running session has the number")
        closed: list[int] = []
        for forwarder in forwarders:
            if numbers or forwarder.route.name in names:
                closed += forwarder.stop_sessions(CLOSED, numbers or None)
        self._wait_until_ended(set(closed))
        return {"closed": sorted(closed)}

    def pause(self, body: JsonObject) -> JsonObject:
        """Reject new clients of ``routes`` until they are resumed. Does not block."""
        forwarders = self._forwarders(body)
        changed = [forwarder.route.name for forwarder in forwarders if not forwarder.is_paused]
        for forwarder in forwarders:
            if not forwarder.is_paused:
                forwarder.pause()
        left = {forwarder.route.name: forwarder.session_count for forwarder in forwarders}
        return {"paused": changed, "sessions_left": left}

    def resume(self, body: JsonObject) -> JsonObject:
        """Accept clients of ``routes`` again. Does not block."""
        forwarders = self._forwarders(body)
        changed = [forwarder.route.name for forwarder in forwarders if forwarder.is_paused]
        for forwarder in forwarders:
            forwarder.resume()
        return {"resumed": changed}

    def retry(self, body: JsonObject) -> JsonObject:
        """Retry at once whatever has failed for ``routes``, or for all routes if none is named. Does not block."""
        names = _names(body)
        enabled = [route.name for route in self._agent.routes if route.enabled]
        _expect(set(names), set(enabled), "no enabled route is named")
        self._agent.retry(names or None)
        return {"retried": names or enabled}

    def log_level(self, body: JsonObject) -> JsonObject:
        """Log from ``level`` on for ``for_s`` seconds, or until changed if that is 0. "" restores the file's level."""
        level = next((each for each in LEVELS if each == body.get("level")), None)
        if level is None and body.get("level") != "":
            raise Declined(f"unknown level; expected {', '.join(LEVELS)}, or an empty text for the level in agent.toml")
        self._verbosity.want(level, _seconds(body, "for_s"))
        return self.level()

    def level(self) -> JsonObject:
        """Return the log level in effect and the configured one."""
        return {"level": self._verbosity.now, "configured": self._verbosity.configured}

    def _forwarders(self, body: JsonObject) -> list[Forwarder]:
        names = _names(body)
        found = {name: forwarder for name in names if (forwarder := self._agent.forwarder(name)) is not None}
        if not names:
            raise Declined("name at least one route")
        _expect(set(names), set(found), "no running route is named")
        return list(found.values())

    def _running_numbers(self) -> set[int]:
        return {number for forwarder in self._agent.forwarders() for number in forwarder.numbers}

    def _wait_until_ended(self, numbers: set[int]) -> None:
        with gevent.Timeout(ABORT_TIMEOUT_S, False):
            while numbers & self._running_numbers():
                gevent.sleep(POLL_INTERVAL_S)


def _expect(named: set[str] | set[int], known: set[str] | set[int], otherwise: str) -> None:
    """Raise Declined, beginning with ``otherwise``, if anything named is unknown."""
    unknown = sorted(map(str, named - known))
    if unknown:
        raise Declined(f"{otherwise} {', '.join(unknown)}")


def _names(body: JsonObject) -> list[str]:
    """Return the route names in the body without duplicates."""
    names = body.get("routes", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Declined("routes must be a list of names")
    return list(dict.fromkeys(names))


def _numbers(body: JsonObject) -> set[int]:
    numbers = body.get("sessions", [])
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
        raise Declined("sessions must be a list of numbers")
    return set(numbers)


def _seconds(body: JsonObject, key: str) -> float:
    seconds = body.get(key, 0)
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds <= MAX_FOR_S:
        raise Declined(f"{key} must be a number of seconds from 0 to {MAX_FOR_S}")
    return float(seconds)
