"""What may be changed in a running agent beside its file: sessions, routes that pause, waits, the level of the log."""

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

LOOK_EVERY_S: Final = 0.01
"""Whether the sessions that were closed are over."""
MAX_FOR_S: Final = 7 * 86_400
"""For a level of the log: whoever wants it for longer writes it into the file."""


class OperatorActions:
    """Takes what commands ask for over the control socket. All methods raise Declined."""

    def __init__(self, agent: Agent, verbosity: Verbosity) -> None:
        self._agent = agent
        self._verbosity = verbosity

    @property
    def get_handlers(self) -> Mapping[str, Handler]:
        """As ``takes``, for what changes nothing."""
        return {"/log-level": self.level}

    @property
    def body_handlers(self) -> Mapping[str, BodyHandler]:
        """By the path of the control socket's URL."""
        return {
            "/close": self.close, "/pause": self.pause, "/resume": self.resume, "/retry": self.retry,
            "/log-level": self.log_level,
        }  # fmt: skip

    def close(self, asked: JsonObject) -> JsonObject:
        """End the ``sessions`` of these numbers, or all of ``routes``; return when they are over. Blocks."""
        names, numbers = set(_names(asked)), _numbers(asked)
        if bool(names) == bool(numbers):
            raise Declined("name sessions or routes")
        forwarders = self._agent.forwarders()
        _expect(names, {forwarder.route.name for forwarder in forwarders}, "no route that runs is named")
        _expect(numbers, self._running(), "no session has the number")
        closed: list[int] = []
        for forwarder in forwarders:
            if numbers or forwarder.route.name in names:
                closed += forwarder.stop_sessions(CLOSED, numbers or None)
        self._wait_for_the_end_of(set(closed))
        return {"closed": sorted(closed)}

    def pause(self, asked: JsonObject) -> JsonObject:
        """Let nobody into these ``routes`` until they are resumed. Does not block."""
        chosen = self._forwarders(asked)
        changed = [forwarder.route.name for forwarder in chosen if not forwarder.is_paused]
        for forwarder in chosen:
            if not forwarder.is_paused:
                forwarder.pause()
        left = {forwarder.route.name: forwarder.session_count for forwarder in chosen}
        return {"paused": changed, "sessions_left": left}

    def resume(self, asked: JsonObject) -> JsonObject:
        """Let clients into these ``routes`` again. Does not block."""
        chosen = self._forwarders(asked)
        changed = [forwarder.route.name for forwarder in chosen if forwarder.is_paused]
        for forwarder in chosen:
            forwarder.resume()
        return {"resumed": changed}

    def retry(self, asked: JsonObject) -> JsonObject:
        """Forget the waits of these ``routes`` after failures, of all if none is named. Does not block."""
        names = _names(asked)
        enabled = [route.name for route in self._agent.routes if route.enabled]
        _expect(set(names), set(enabled), "no enabled route is named")
        self._agent.retry(names or None)
        return {"retried": names or enabled}

    def log_level(self, asked: JsonObject) -> JsonObject:
        """Log from ``level`` on, ``for_s`` seconds or until told otherwise; an empty level: as the file says."""
        level = next((each for each in LEVELS if each == asked.get("level")), None)
        if level is None and asked.get("level") != "":
            raise Declined(f"no such level; there are {', '.join(LEVELS)}, and none for what the file says")
        self._verbosity.want(level, _seconds(asked, "for_s"))
        return self.level()

    def level(self) -> JsonObject:
        """What is logged now, and what the file says."""
        return {"level": self._verbosity.now, "configured": self._verbosity.configured}

    def _forwarders(self, asked: JsonObject) -> list[Forwarder]:
        names = _names(asked)
        found = {name: forwarder for name in names if (forwarder := self._agent.forwarder(name)) is not None}
        if not names:
            raise Declined("name a route")
        _expect(set(names), set(found), "no route that runs is named")
        return list(found.values())

    def _running(self) -> set[int]:
        return {number for forwarder in self._agent.forwarders() for number in forwarder.numbers}

    def _wait_for_the_end_of(self, numbers: set[int]) -> None:
        with gevent.Timeout(ABORT_TIMEOUT_S, False):
            while numbers & self._running():
                gevent.sleep(LOOK_EVERY_S)


def _expect(wanted: set[str] | set[int], known: set[str] | set[int], otherwise: str) -> None:
    unknown = sorted(map(str, wanted - known))
    if unknown:
        raise Declined(f"{otherwise} {', '.join(unknown)}")


def _names(asked: JsonObject) -> list[str]:
    """The names under ``routes``, each once."""
    names = asked.get("routes", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Declined("routes is not a list of names")
    return list(dict.fromkeys(names))


def _numbers(asked: JsonObject) -> set[int]:
    numbers = asked.get("sessions", [])
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
        raise Declined("sessions is not a list of numbers")
    return set(numbers)


def _seconds(asked: JsonObject, key: str) -> float:
    seconds = asked.get(key, 0)
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds <= MAX_FOR_S:
        raise Declined(f"{key} is not a number of seconds, {MAX_FOR_S} at most")
    return float(seconds)
