"""Which sessions are logged, with which fields, and how the unlogged ones are counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from pomagent.config.model import AgentTable
from pomagent.errors import Recovery
from pomagent.gateway.dialer import Timings
from pomagent.sessions.counters import SessionCounts
from pomagent.sessions.ends import CLIENT_ABORTED, GATEWAY_FINISHED, End
from pomagent.sessions.peer_user import PeerUser
from pomagent.sessions.session_log import PROGRESS_EVERY_S, SessionLog, share
from pomagent.sessions.user_names import Users
from tests.fakes.clock import FakeClock
from tests.fakes.log import FakeLog
from tests.fakes.streams import stream_pair


@dataclass
class FakeRelay:
    """The fields of a relay that are logged."""

    bytes_up: int = 3
    bytes_down: int = 5
    first_byte_at: float | None = None
    last_byte_at: float = 1000.0


@dataclass
class FakeTunnel:
    """The fields of a tunnel that are logged."""

    timings: Timings = field(default_factory=Timings)
    was_warm: bool = True
    request_id: str = "r-1"


class Route:
    """A route with its counts. The test ends its sessions."""

    def __init__(self, log_sessions: str) -> None:
        self.log_sessions = log_sessions
        self.fake_log = FakeLog()
        self.counts = SessionCounts()
        self.clock = FakeClock()

    def session(self, draw: float = 0.5) -> SessionLog:
        user = PeerUser(stream_pair()[0], Users())
        log = self.fake_log.log.bind(route="echo", session=1, peer="127.0.0.1:5")
        return SessionLog(log, user, self.counts, lambda: self.log_sessions, 1, self.clock, draw=lambda: draw)

    def close(self, end: End = GATEWAY_FINISHED, draw: float = 0.5) -> None:
        self.session(draw).closed(FakeTunnel(), FakeRelay(), end, 7)  # type: ignore[arg-type]

    def refuse(self) -> None:
        self.session().refused("no tunnel", Recovery.RETRY, "")

    @property
    def lines(self) -> list[Any]:
        """The reason and the ``unlogged`` count of each line."""
        return [(line.get("reason", "refused"), line.get("unlogged")) for line in self.fake_log.lines]


@pytest.mark.parametrize(
    ("log_sessions", "lines"),
    [
        ("all", [("finished", None), ("aborted", None), ("refused", None)]),
        ("errors", [("aborted", 1), ("refused", None)]),
        ("1/2", [("aborted", 1), ("refused", None)]),
        ("none", []),
    ],
)
def test_setting_decides_which_ends_are_logged(log_sessions, lines):
    route = Route(log_sessions)
    route.close()
    route.close(CLIENT_ABORTED)
    route.refuse()
    assert route.lines == lines


@pytest.mark.parametrize(("draw", "lines"), [(0.0, 1), (0.0099, 1), (0.01, 0), (0.99, 0)])
def test_share_of_the_clean_ends_is_logged(draw, lines):
    route = Route("1/100")
    route.close(draw=draw)
    assert len(route.lines) == lines


def test_unlogged_sessions_are_reported_once_by_the_next_line():
    route = Route("errors")
    for _ in range(3):
        route.close()
    route.refuse()
    route.refuse()
    assert route.lines == [("refused", 3), ("refused", None)]


def test_sessions_unlogged_before_an_edit_are_reported_after_it():
    route = Route("none")
    route.refuse()
    route.close()
    route.log_sessions = "all"
    route.close()
    assert route.lines == [("finished", 2)]


def test_session_is_over_whether_or_not_it_was_logged():
    for log_sessions in ("all", "none"):
        session = Route(log_sessions).session()
        assert not session.is_over
        session.refused("no tunnel", Recovery.RETRY, "limit")
        assert session.is_over


@pytest.mark.parametrize(("after_s", "lines"), [(PROGRESS_EVERY_S - 1, 0), (PROGRESS_EVERY_S, 1)])
def test_long_session_logs_its_progress(after_s, lines):
    route = Route("all")
    session = route.session()
    route.clock.advance(after_s)
    session.progress(FakeTunnel(), FakeRelay(last_byte_at=route.clock.now - 2), route.clock.now)
    assert [(line["bytes_up"], line["idle_ms"]) for line in route.fake_log.lines] == [(3, 2000)] * lines


def test_progress_is_logged_once_an_hour():
    route = Route("all")
    session = route.session()
    for _ in range(3 * 60):
        route.clock.advance(60)
        session.progress(FakeTunnel(), FakeRelay(), route.clock.now)
    assert route.fake_log.events == ["session.progress"] * 3


@pytest.mark.parametrize(("log_sessions", "lines"), [("errors", 0), ("none", 0), ("1/3", 0), ("1/2", 1)])
def test_progress_is_logged_if_a_clean_end_would_be(log_sessions, lines):
    route = Route(log_sessions)
    session = route.session(draw=0.4)
    route.clock.advance(PROGRESS_EVERY_S)
    session.progress(FakeTunnel(), FakeRelay(), route.clock.now)
    assert len(route.fake_log.lines) == lines


@pytest.mark.parametrize(("log_sessions", "expected"), [("errors", 0.0), ("1/1", 1.0), ("1/4", 0.25)])
def test_share_is_a_fraction(log_sessions, expected):
    assert share(log_sessions) == expected


@pytest.mark.parametrize("log_sessions", ["all", "errors", "none", "1/1", "1/100", "1/999999"])
def test_configuration_accepts_every_setting(log_sessions):
    assert AgentTable(log_sessions=log_sessions).log_sessions == log_sessions
