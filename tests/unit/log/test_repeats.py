"""Repeated lines are counted instead of written, and no count is lost."""

from __future__ import annotations

import json
import os

import pytest

from pomagent.log import events, repeats
from pomagent.log.logger import LogLevel, make_logger
from pomagent.log.repeats import EVERY_S, MAX_KINDS, WRITTEN, Repeats
from pomagent.log.writer import LogWriter
from tests.fakes.clock import FakeClock
from tests.fakes.log import Lines
from tests.gateway.waiting import scaled, wait_until


class Log:
    """Returns the lines of successive minutes."""

    def __init__(self):
        self.clock = FakeClock()
        self.repeats = Repeats(self.clock)

    def tell(self, times=1, level="warning", **fields):
        """Return how many of ``times`` lines are written."""
        held = [self.repeats.holds(level, {"event": "session.refused", **fields}) for _ in range(times)]
        return held.count(False)

    def next_minute(self):
        self.clock.advance(EVERY_S)
        return [fields["repeated"] for _, fields in self.repeats.due()]


@pytest.fixture
def log():
    return Log()


@pytest.mark.parametrize(("times", "written"), [(WRITTEN - 1, WRITTEN - 1), (WRITTEN, WRITTEN), (1000, WRITTEN)])
def test_the_first_of_a_kind_are_written(log, times, written):
    assert log.tell(times) == written


@pytest.mark.parametrize("level", ["debug", "info"])
def test_info_and_debug_lines_are_never_held(log, level):
    assert log.tell(1000, level=level) == 1000


@pytest.mark.parametrize("name", ["route", "gateway", "credential", "listen", "error", "reason", "user", "exception"])
def test_another_kind_is_written(log, name):
    log.tell(1000, **{name: "one"})
    assert log.tell(**{name: "another"}) == 1


def test_client_and_time_do_not_distinguish_kinds(log):
    assert (
        sum(log.tell(peer=f"127.0.0.1:{number}", session=number, waited_ms=number) for number in range(50)) == WRITTEN
    )


def test_each_minute_the_last_line_stands_for_all_that_were_held(log):
    log.tell(WRITTEN)
    log.tell(6, session=1)
    log.tell(1, session=2)
    log.clock.advance(EVERY_S)
    assert log.repeats.due() == [("warning", {"event": "session.refused", "session": 2, "repeated": 7})]


def test_unlogged_sessions_of_held_lines_are_summed(log):
    log.tell(WRITTEN)
    for unlogged in (3, 4):
        log.tell(unlogged=unlogged)
    log.tell()
    log.clock.advance(EVERY_S)
    assert log.repeats.due() == [("warning", {"event": "session.refused", "unlogged": 7, "repeated": 3})]
    log.tell()
    log.clock.advance(EVERY_S)
    assert log.repeats.due() == [("warning", {"event": "session.refused", "repeated": 1})]


def test_continuing_repeats_have_one_line_a_minute(log):
    log.tell(WRITTEN + 5)
    assert log.next_minute() == [5]
    assert log.tell(8) == 0
    assert log.next_minute() == [8]


def test_after_a_minute_of_silence_the_next_one_is_written_again(log):
    log.tell(WRITTEN + 5)
    assert log.next_minute() == [5]
    assert log.next_minute() == []
    assert log.tell(WRITTEN + 1) == WRITTEN


def test_infrequent_lines_are_always_written(log):
    for _ in range(100):
        assert log.tell() == 1
        log.clock.advance(EVERY_S)
        assert log.repeats.due() == []


def test_nothing_is_due_before_its_minute_is_over(log):
    log.tell(100)
    log.clock.advance(EVERY_S - 1)
    assert log.repeats.due() == []
    assert log.repeats.due_in_s() == 1


def test_writer_may_sleep_while_no_kind_is_tracked(log):
    assert log.repeats.due_in_s() is None
    log.tell()
    assert log.next_minute() == []
    assert log.repeats.due_in_s() is None


def test_held_lines_are_all_counted_at_the_end(log):
    log.tell(WRITTEN + 3)
    assert [fields["repeated"] for _, fields in log.repeats.due(at_the_end=True)] == [3]


@pytest.mark.parametrize(("kinds", "written"), [(MAX_KINDS - 1, WRITTEN), (MAX_KINDS, 100)])
def test_beyond_a_number_of_kinds_everything_is_written(log, kinds, written):
    for number in range(kinds):
        log.tell(error=str(number))
    assert log.tell(100, error="one more") == written


class Hopeless:
    def __str__(self):
        raise ValueError("no text")


@pytest.mark.parametrize("value", [Hopeless(), None, ["a"], OSError("x"), 5])
def test_no_value_makes_it_fail(log, value):
    assert log.tell(100, error=value) == WRITTEN


def test_at_debug_every_line_is_written():
    lines = Lines()
    log = make_logger(lines, format="json", level=LogLevel("debug"))
    for _ in range(100):
        log.warning(events.SESSION_REFUSED, error="down")
    assert len(lines) == 100


@pytest.fixture
def output(tmp_path):
    with (tmp_path / "log").open("w+b", buffering=0) as file:
        yield file


def read(output):
    return [json.loads(line) for line in os.pread(output.fileno(), 1 << 20, 0).splitlines()]


def test_count_is_written_in_time_without_further_events(output, monkeypatch):
    monkeypatch.setattr(repeats, "EVERY_S", 0.2)
    writer = LogWriter(output.fileno())
    log = make_logger(writer, format="json", level=LogLevel("info")).bind(route="redis")
    for _ in range(WRITTEN + 7):
        log.warning(events.SESSION_REFUSED, error="down")
    wait_until(lambda: any("repeated" in line for line in read(output)))
    told = [line["repeated"] for line in read(output) if "repeated" in line]
    assert (sum(told), read(output)[-1]["route"]) == (7, "redis")
    assert writer.close(scaled(20))


def test_the_count_is_written_at_the_end(output):
    writer = LogWriter(output.fileno())
    log = make_logger(writer, format="json", level=LogLevel("info"))
    for _ in range(WRITTEN + 7):
        log.error(events.CONFIG_REJECTED, problems=["one"])
    assert writer.close(scaled(20))
    lines = read(output)
    assert len(lines) == WRITTEN + 1
    assert (lines[-1]["event"], lines[-1]["level"], lines[-1]["repeated"]) == ("config.rejected", "error", 7)
