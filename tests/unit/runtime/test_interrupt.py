"""An interrupt ends its section only, never later code of the greenlet."""

from collections.abc import Callable

import gevent
import pytest
from gevent.event import Event

from pomagent.runtime.interrupt import Interrupt
from tests.fakes.greenlets import settle


def start(work: Callable[[], object]) -> gevent.Greenlet:
    greenlet = gevent.Greenlet(work)
    greenlet.start()
    settle()
    return greenlet


def test_a_section_that_waits_ends_and_its_greenlet_goes_on() -> None:
    interrupt, seen = Interrupt(), []

    def work() -> None:
        with interrupt:
            Event().wait()
            seen.append("not reached")
        seen.append("after")

    greenlet = start(work)
    interrupt.send()
    greenlet.join(1)
    assert seen == ["after"]


def test_a_section_that_ends_by_itself_in_the_same_moment_is_not_hit_later() -> None:
    interrupt, wake, seen = Interrupt(), Event(), []

    def work() -> None:
        with interrupt:
            wake.wait()
        for _ in range(3):
            gevent.sleep(0)
        seen.append("after")

    greenlet = start(work)
    wake.set()  # its switch is scheduled before the interrupt's
    interrupt.send()
    greenlet.join(1)
    assert seen == ["after"]


def test_sent_before_the_section_it_does_nothing() -> None:
    interrupt = Interrupt()
    interrupt.send()
    with interrupt:
        gevent.sleep(0)


def test_sent_after_the_section_it_does_nothing() -> None:
    interrupt = Interrupt()
    with interrupt:
        gevent.sleep(0)
    interrupt.send()
    gevent.sleep(0)


def test_sent_from_within_the_section_it_does_nothing() -> None:
    interrupt = Interrupt()
    with interrupt:
        interrupt.send()
        gevent.sleep(0)
        return
    pytest.fail("interrupted by itself")


def test_sent_twice_it_ends_one_section_only() -> None:
    interrupt, seen = Interrupt(), []

    def work() -> None:
        with interrupt:
            Event().wait()
        with interrupt:
            gevent.sleep(0)
            seen.append("second section")

    greenlet = start(work)
    interrupt.send()
    interrupt.send()
    greenlet.join(1)
    assert seen == ["second section"]


def test_an_error_of_the_section_passes() -> None:
    interrupt = Interrupt()
    with pytest.raises(ValueError, match="invalid literal"), interrupt:
        int("mine")


def test_a_kill_passes() -> None:
    interrupt, seen = Interrupt(), []

    def work() -> None:
        with interrupt:
            Event().wait()
        seen.append("not reached")

    start(work).kill()
    assert seen == []


def test_an_interrupt_of_another_section_passes_through_the_inner_one() -> None:
    outer, inner, seen = Interrupt(), Interrupt(), []

    def work() -> None:
        with outer:
            with inner:
                Event().wait()
            seen.append("not reached")
        seen.append("after outer")

    greenlet = start(work)
    outer.send()
    greenlet.join(1)
    assert seen == ["after outer"]
