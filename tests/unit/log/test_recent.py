"""Recent notable events are kept, with equal ones merged."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pomagent.log import events
from pomagent.log.logger import Logger, LogLevel, LogWriter, make_logger
from pomagent.log.recent import KEPT_OF_EACH, RecentEvents


@pytest.fixture
def recent() -> RecentEvents:
    return RecentEvents()


@pytest.fixture
def log(recent: RecentEvents) -> Iterator[Logger]:
    with Path(os.devnull).open("w") as sink:
        writer = LogWriter(sink.fileno())
        yield recent.followed(make_logger(writer, format="json", level=LogLevel("info")))
        writer.close()


def names(recent: RecentEvents, count: int = 100) -> list[str]:
    return [note.fields["event"] for note in recent.latest(count)]


def test_warnings_and_milestones_are_kept_and_routine_events_are_not(recent: RecentEvents, log: Logger) -> None:
    log.info(events.CONFIG_APPLIED)
    log.info(events.SESSION_CLOSED)
    log.debug(events.TUNNEL_OPENED)
    log.warning(events.BREAKER_OPENED, route="redis")
    log.error(events.CONFIG_REJECTED, problems=["agent.toml:3: no"])
    assert names(recent) == ["config.rejected", "breaker.opened", "config.applied"]
    assert recent.latest(1)[0].fields["problems"] == ["agent.toml:3: no"]


def test_bound_fields_are_part_of_the_event(recent: RecentEvents, log: Logger) -> None:
    log.bind(route="redis").warning(events.SESSION_REFUSED, error="no")
    (note,) = recent.latest(10)
    assert (note.fields["route"], note.fields["error"], note.level) == ("redis", "no", "warning")


def test_equal_events_are_merged_with_a_count(recent: RecentEvents, log: Logger) -> None:
    for route in ("redis", "redis", "billing", "redis"):
        log.warning(events.SESSION_REFUSED, route=route, error="no", waited_ms=id(route))
    assert [(note.fields["route"], note.count) for note in recent.latest(10)] == [("redis", 3), ("billing", 1)]


def test_frequent_events_do_not_displace_rare_ones(recent: RecentEvents, log: Logger) -> None:
    log.error(events.CONFIG_REJECTED)
    for number in range(5 * KEPT_OF_EACH):
        log.warning(events.SESSION_REFUSED, error=str(number))
    assert len(recent.latest(1000)) == KEPT_OF_EACH + 1
    assert names(recent, 1000)[-1] == "config.rejected"


def test_the_line_itself_is_written_as_before(recent: RecentEvents) -> None:
    reading, writing = os.pipe()
    writer = LogWriter(writing)
    log = recent.followed(make_logger(writer, format="json", level=LogLevel("info")))
    log.warning(events.BREAKER_OPENED, route="redis")
    writer.close()
    os.close(writing)
    assert b'"event": "breaker.opened"' in os.read(reading, 65536)
    os.close(reading)


def test_different_commands_of_an_operator_are_not_merged(recent: RecentEvents, log: Logger) -> None:
    for command in ("pause", "resume"):
        log.info(events.CONTROL_CHANGED, uid=0, command=command)
    assert [note.fields["command"] for note in recent.latest(10)] == ["resume", "pause"]
