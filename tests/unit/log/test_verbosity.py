"""The log level is that of the file, unless an operator sets another one for a time."""

import pytest

from pomagent.log.logger import LogLevel
from pomagent.log.verbosity import Verbosity
from tests.fakes.greenlets import settle
from tests.gateway.waiting import wait_until

NUMBERS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


@pytest.fixture
def level() -> LogLevel:
    return LogLevel("info")


@pytest.fixture
def verbosity(level: LogLevel) -> Verbosity:
    verbosity = Verbosity(level)
    verbosity.set("warning")
    return verbosity


def test_the_file_alone_decides_at_first(verbosity: Verbosity, level: LogLevel) -> None:
    assert (verbosity.now, level.number) == ("warning", NUMBERS["warning"])


def test_operators_level_survives_a_reload(verbosity: Verbosity, level: LogLevel) -> None:
    verbosity.want("debug")
    verbosity.set("error")
    assert (verbosity.now, verbosity.configured, level.number) == ("debug", "error", NUMBERS["debug"])


def test_afterwards_the_file_as_it_is_then_decides(verbosity: Verbosity, level: LogLevel) -> None:
    verbosity.want("debug")
    verbosity.set("error")
    verbosity.want(None)
    assert (verbosity.now, level.number) == ("error", NUMBERS["error"])


def test_operators_level_ends_after_its_time(verbosity: Verbosity, level: LogLevel) -> None:
    verbosity.want("debug", for_s=0.01)
    wait_until(lambda: verbosity.now == "warning")
    assert level.number == NUMBERS["warning"]


def test_the_time_of_an_earlier_wish_does_not_end_a_later_one(verbosity: Verbosity) -> None:
    verbosity.want("debug", for_s=0.01)
    verbosity.want("error", for_s=3600)
    settle()
    assert len(verbosity._group) == 1
    verbosity.want("debug")
    settle()
    assert len(verbosity._group) == 0
    assert verbosity.now == "debug"
