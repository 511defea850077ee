"""Lines have the expected format and never contain secrets."""

import json
import os
import re
from enum import Enum
from ipaddress import ip_address
from pathlib import Path

import pytest
from pydantic import SecretStr

from pomagent.log import events
from pomagent.log.logger import Logger, LogLevel, make_logger, resolve_format
from pomagent.settings import HostPort
from tests.fakes.log import Lines


class Recovery(Enum):
    RETRY = "retry"


class Hopeless:
    def __str__(self):
        raise ValueError("no text")


@pytest.fixture
def lines(monkeypatch):
    monkeypatch.setattr(os, "isatty", lambda fd: False)
    return Lines()


@pytest.fixture
def log(lines) -> Logger:
    return make_logger(lines, format="json", level=LogLevel("info"))


@pytest.fixture
def console(lines) -> Logger:
    return make_logger(lines, format="console", level=LogLevel("info"))


def test_json_starts_with_event_timestamp_and_level(log, lines):
    log.bind(route="orders-db").info(events.SESSION_CLOSED, bytes_up=3)
    line = json.loads(lines[0])
    assert list(line) == ["event", "timestamp", "level", "route", "bytes_up"]
    assert line["event"] == "session.closed"
    assert line["level"] == "info"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])


def test_a_field_cannot_take_the_place_of_level_or_timestamp(log, lines):
    log.info(events.AGENT_STARTED, level="fatal", timestamp="yesterday")
    assert json.loads(lines[0])["level"] == "info"
    assert json.loads(lines[0])["timestamp"] != "yesterday"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Path("/etc/pomagent"), "/etc/pomagent"),
        (HostPort("::1", 5432), "[::1]:5432"),
        (ip_address("127.0.0.1"), "127.0.0.1"),
        (Recovery.RETRY, "retry"),
        (SecretStr("eyJhbGciOi"), "**********"),
        (OSError("refused"), "refused"),
        (TimeoutError(), "TimeoutError"),
        (b"\xff\n", "\\xff\n"),
        (frozenset({"b", "a"}), ["a", "b"]),
        ([HostPort("h", 1), Path("p")], ["h:1", "p"]),
        ("\udcff", "\udcff"),
        (None, None),
        (1.5, 1.5),
    ],
)
def test_values_are_rendered_by_their_names(log, lines, value, expected):
    log.info(events.AGENT_STARTED, value=value)
    assert json.loads(lines[0])["value"] == expected


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_secret_is_never_rendered(lines, style):
    log = make_logger(lines, format=style, level=LogLevel("debug")).bind(bound=SecretStr("eyJ-1"))
    log.debug(events.AGENT_STARTED, one=SecretStr("eyJ-1"), many=[SecretStr("eyJ-1")], nested={"k": SecretStr("eyJ-1")})
    assert "eyJ-1" not in lines[0]


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_value_that_cannot_be_rendered_does_not_reach_the_caller(lines, style):
    make_logger(lines, format=style, level=LogLevel()).info(events.AGENT_STARTED, value=Hopeless())
    assert "agent.started" in lines[0]
    assert "no text" in lines[0]


def test_a_terminal_sequence_is_harmless_in_json(log, lines):
    log.info(events.AGENT_STARTED, value="\x9b31m\x1b[31m")
    assert lines[0].isprintable()
    assert lines[0].isascii()


def test_a_console_line_names_event_and_fields(console, lines):
    console.bind(route="orders-db").info(events.LISTENER_BOUND, listen=HostPort("::1", 5432), count=2, missing=None)
    assert re.sub(r"^\S+", "TIME", lines[0]) == (
        "TIME info     listener.bound         route=orders-db listen=[::1]:5432 count=2 missing=null"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("two words", '"two words"'),
        ("two\nlines", '"two\\nlines"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        ("zweiter Schlüssel", '"zweiter Schlüssel"'),
        ("Schlüssel", "Schlüssel"),
        ('a="b"', '"a=\\"b\\""'),
        ("", '""'),
        (["a b", Path("p")], '["a b", "p"]'),
        (Recovery.RETRY, "retry"),
        (True, "true"),
    ],
)
def test_ambiguous_console_value_is_quoted(console, lines, value, expected):
    console.info(events.AGENT_STARTED, value=value)
    assert lines[0].endswith(f" value={expected}")
    assert lines[0].isprintable()


def test_colour_is_for_terminals_only(lines, monkeypatch):
    make_logger(lines, format="console", level=LogLevel()).error(events.CONFIG_REJECTED)
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    make_logger(lines, format="console", level=LogLevel()).error(events.CONFIG_REJECTED)
    make_logger(lines, format="json", level=LogLevel()).error(events.CONFIG_REJECTED)
    assert ["\033[" in line for line in lines] == [False, True, False]


def test_auto_is_console_on_a_terminal_and_json_elsewhere(tmp_path):
    parent, child = os.openpty()
    with (tmp_path / "stderr").open("wb") as file:
        assert resolve_format("auto", child) == "console"
        assert resolve_format("auto", file.fileno()) == "json"
        assert resolve_format("json", child) == "json"
        assert resolve_format("console", file.fileno()) == "console"
    os.close(parent)
    os.close(child)


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("info", ["info", "warning", "error", "critical"]),
        ("warning", ["warning", "error", "critical"]),
        ("error", ["error", "critical"]),
    ],
)
def test_lines_below_the_level_are_left_out(lines, level, written):
    log = make_logger(lines, format="json", level=LogLevel(level))
    methods = {name: getattr(log, name) for name in ("debug", "info", "warning", "error", "critical")}
    for method in methods.values():
        method(events.AGENT_STARTED)
    assert [json.loads(line)["level"] for line in lines] == written
    assert [name for name in methods if log.is_enabled_for(name)] == written


def test_a_new_level_reaches_loggers_that_were_bound_before(lines):
    level = LogLevel("info")
    log = make_logger(lines, format="json", level=level).bind(route="r")
    log.debug(events.SESSION_OPENED)
    level.set("debug")
    log.debug(events.SESSION_OPENED)
    assert len(lines) == 1


def test_line_below_the_level_is_not_rendered(log, lines, monkeypatch):
    """A line below the level costs one comparison, 0.15 µs, a hundredth of a written line."""
    monkeypatch.setattr(Logger, "_proxy_to_logger", None)
    log.bind(route="orders-db").debug(events.SESSION_OPENED, peer="p")
    assert lines == []


def test_two_loggers_share_nothing(lines):
    first = make_logger(lines, format="json", level=LogLevel("debug")).bind(route="a")
    second = make_logger(Lines(), format="json", level=LogLevel("error"))
    second.info(events.AGENT_STARTED)
    first.debug(events.AGENT_STARTED)
    assert [json.loads(line)["route"] for line in lines] == ["a"]


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_loss_is_described_as_an_event(lines, style):
    make_logger(lines, format=style, level=LogLevel("error"))
    text = lines.describe_loss(7).text
    assert "log.dropped" in text
    assert "7" in text


def test_at_level_critical_an_error_is_not_written(lines):
    log = make_logger(lines, format="json", level=LogLevel("critical"))
    log.error(events.CONFIG_REJECTED)
    assert not lines
    log.critical(events.GREENLET_CRASHED)
    assert len(lines) == 1


@pytest.mark.parametrize(("value", "is_coloured"), [("", True), ("1", False)])
def test_no_color_is_obeyed(lines, monkeypatch, value, is_coloured):
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    monkeypatch.setenv("NO_COLOR", value)
    make_logger(lines, format="console", level=LogLevel()).info(events.AGENT_STARTED)
    assert ("\033[" in lines[0]) is is_coloured


@pytest.mark.parametrize(("level", "priority"), [("info", 6), ("warning", 4), ("error", 3), ("critical", 2)])
def test_journal_gets_the_level_as_a_prefix(lines, monkeypatch, tmp_path, level, priority):
    with (tmp_path / "journal").open("w") as journal:
        status = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        lines.fd = journal.fileno()
        log = make_logger(lines, format="json", level=LogLevel("info"))
    getattr(log, level)(events.CONFIG_WARNED)
    assert lines[0].startswith(f'<{priority}>{{"event": ')


def test_prefix_is_for_the_journal_only(lines, monkeypatch, tmp_path):
    monkeypatch.setenv("JOURNAL_STREAM", "8:4711")
    with (tmp_path / "file").open("w") as file:
        lines.fd = file.fileno()
        log = make_logger(lines, format="json", level=LogLevel("info"))
    log.info(events.CONFIG_WARNED)
    assert lines[0].startswith("{")
