"""Crashes and library warnings become lines; nothing is printed."""

import json
import logging
import threading

import gevent
import pytest
from gevent.pool import Group

from pomagent.log.crash_reports import install_crash_boundary
from pomagent.log.logger import LogLevel, make_logger
from tests.fakes.log import Lines


@pytest.fixture
def lines(capfd):
    lines = Lines()
    hub = gevent.get_hub()
    restore = install_crash_boundary(make_logger(lines, format="json", level=LogLevel()), hub)
    yield lines
    restore()
    assert "print_exception" not in vars(hub)
    assert capfd.readouterr().err == ""


def crash():
    raise ValueError("no such thing")


def run(function):
    greenlet = Group().spawn(function)
    greenlet.name = "pool orders-db"
    gevent.wait([greenlet])
    return greenlet


def test_a_crashed_greenlet_is_one_critical_line_with_its_traceback(lines):
    run(crash)
    (line,) = lines
    record = json.loads(line)
    assert (record["event"], record["level"], record["name"]) == ("greenlet.crashed", "critical", "pool orders-db")
    assert record["exception"].startswith("Traceback (most recent call last):\n")
    assert record["exception"].endswith("ValueError: no such thing")
    assert "in crash" in record["exception"]


def test_a_crash_is_one_line_on_the_console_too(lines):
    console = Lines()
    restore = install_crash_boundary(make_logger(console, format="console", level=LogLevel()), gevent.get_hub())
    run(crash)
    restore()
    install_crash_boundary(make_logger(lines, format="json", level=LogLevel()), gevent.get_hub())
    assert len(console) == 1
    assert console[0].isprintable()


def test_a_killed_greenlet_is_no_crash(lines):
    greenlet = Group().spawn(gevent.sleep, 60)
    gevent.sleep(0)
    greenlet.kill()
    assert lines == []


@pytest.mark.parametrize("meant", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_and_an_exit_reach_the_main_greenlet_unlogged(lines, meant):
    def leave():
        raise meant

    with pytest.raises(meant):
        run(leave)
    assert lines == []


def test_a_crashed_callback_of_the_loop_is_logged(lines):
    gevent.get_hub().loop.run_callback(crash)
    gevent.sleep(0)
    assert [json.loads(line)["event"] for line in lines] == ["greenlet.crashed"]


def test_a_crashed_thread_is_logged(lines):
    thread = threading.Thread(target=crash, name="observer")
    thread.start()
    thread.join()
    assert [(json.loads(line)["event"], json.loads(line)["name"]) for line in lines] == [
        ("greenlet.crashed", "observer")
    ]


def test_a_library_that_warns_is_logged_and_its_chatter_is_not(lines):
    logging.getLogger("watchdog.observers").info("chatter")
    logging.getLogger("watchdog.observers").error("queue %s", "overflowed")
    (line,) = lines
    record = json.loads(line)
    assert (record["event"], record["level"]) == ("library.warned", "warning")
    assert (record["library"], record["message"]) == ("watchdog.observers", "queue overflowed")
