"""Which sessions get lines, what they say, and how those without are counted."""

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
class Carried:
    """What the lines need of a relay."""

    bytes_up: int = 3
    bytes_down: int = 5
    first_byte_at: float | None = None
    last_byte_at: float = 1000.0


@dataclass
class Opened:
    """What the lines need of a tunnel."""

    timings: Timings = field(default_factory=Timings)
    was_warm: bool = True
    request_id: str = "r-1"


class Route:
    """A route whose sessions a test ends, with its counts."""

    def __init__(self, wish: str) -> None:
        self.wish = wish
        self.fake_log = FakeLog()
        self.counts = SessionCounts()
        self.clock = FakeClock()

    def session(self, draw: float = 0.5) -> SessionLog:
        caller = PeerUser(stream_pair()[0], Users())
        log = self.fake_log.log.bind(route="echo", session=1, peer="127.0.0.1:5")
        return SessionLog(log, caller, self.counts, lambda: self.wish, 1, self.clock, draw=lambda: draw)

    def close(self, end: End = GATEWAY_FINISHED, draw: float = 0.5) -> None:
        self.session(draw).closed(Opened(), Carried(), end, 7)  # type: ignore[arg-type]

    def refuse(self) -> None:
        self.session().refused("no tunnel", Recovery.RETRY, "")

    @property
    def told(self) -> list[Any]:
        """Of each line, why the session ended and how many were left out before it."""
        return [(line.get("reason", "refused"), line.get("unlogged")) for line in self.fake_log.lines]


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ("all", [("finished", None), ("aborted", None), ("refused", None)]),
        ("errors", [("aborted", 1), ("refused", None)]),
        ("1/2", [("aborted", 1), ("refused", None)]),
        ("none", []),
    ],
)
def test_sessions_of_the_wished_classes_get_a_line(wish, told):
    route = Route(wish)
    route.close()
    route.close(CLIENT_ABORTED)
    route.refuse()
    assert route.told == told


@pytest.mark.parametrize(("draw", "told"), [(0.0, 1), (0.0099, 1), (0.01, 0), (0.99, 0)])
def test_of_those_that_end_well_a_share_gets_a_line(draw, told):
    route = Route("1/100")
    route.close(draw=draw)
    assert len(route.told) == told


def test_the_next_line_says_how_many_got_none_and_the_one_after_it_does_not():
    route = Route("errors")
    for _ in range(3):
        route.close()
    route.refuse()
    route.refuse()
    assert route.told == [("refused", 3), ("refused", None)]


def test_what_was_left_out_before_an_edit_is_told_after_it():
    route = Route("none")
    route.refuse()
    route.close()
    route.wish = "all"
    route.close()
    assert route.told == [("finished", 2)]


def test_a_session_is_over_whether_or_not_it_got_a_line():
    for wish in ("all", "none"):
        session = Route(wish).session()
        assert not session.is_over
        session.refused("no tunnel", Recovery.RETRY, "limit")
        assert session.is_over


@pytest.mark.parametrize(("after_s", "lines"), [(PROGRESS_EVERY_S - 1, 0), (PROGRESS_EVERY_S, 1)])
def test_a_session_that_lasts_for_long_tells_what_it_has_carried(after_s, lines):
    route = Route("all")
    session = route.session()
    route.clock.advance(after_s)
    session.progress(Opened(), Carried(last_byte_at=route.clock.now - 2), route.clock.now)
    assert [(line["bytes_up"], line["idle_ms"]) for line in route.fake_log.lines] == [(3, 2000)] * lines


def test_progress_is_told_once_in_each_hour():
    route = Route("all")
    session = route.session()
    for _ in range(3 * 60):
        route.clock.advance(60)
        session.progress(Opened(), Carried(), route.clock.now)
    assert route.fake_log.events == ["session.progress"] * 3


@pytest.mark.parametrize(("wish", "lines"), [("errors", 0), ("none", 0), ("1/3", 0), ("1/2", 1)])
def test_progress_is_told_of_sessions_whose_good_end_would_be(wish, lines):
    route = Route(wish)
    session = route.session(draw=0.4)
    route.clock.advance(PROGRESS_EVERY_S)
    session.progress(Opened(), Carried(), route.clock.now)
    assert len(route.fake_log.lines) == lines


@pytest.mark.parametrize(("wish", "expected"), [("errors", 0.0), ("1/1", 1.0), ("1/4", 0.25)])
def test_a_share_is_a_fraction(wish, expected):
    assert share(wish) == expected


@pytest.mark.parametrize("wish", ["all", "errors", "none", "1/1", "1/100", "1/999999"])
def test_the_file_takes_these_wishes(wish):
    assert AgentTable(log_sessions=wish).log_sessions == wish
