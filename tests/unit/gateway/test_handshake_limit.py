"""Waiting handshakes are admitted, killed ones free their slot, and the rate needs no poll."""

import gevent
import pytest
from gevent.event import Event

from pomagent.gateway.handshake_admission import BURST
from pomagent.gateway.handshake_limit import HandshakeLimit
from tests.fakes.greenlets import settle
from tests.gateway.waiting import wait_until


class Door:
    """Dials that keep their slot until ``finish``."""

    def __init__(self, limit: int) -> None:
        self.limit = HandshakeLimit(limit)
        self.inside: list[str] = []
        self.dials: dict[str, gevent.Greenlet] = {}
        self._go: dict[str, Event] = {}

    def dial(self, name: str, *, urgent: bool = True) -> None:
        go = self._go[name] = Event()

        def handshake() -> None:
            with self.limit.slot(urgent=urgent):
                self.inside.append(name)
                go.wait()
                self.inside.remove(name)

        self.dials[name] = gevent.spawn(handshake)
        settle()

    def finish(self, name: str) -> None:
        self._go[name].set()
        settle()

    def close(self) -> None:
        gevent.killall(list(self.dials.values()))
        settle()
        assert (self.limit.under_way, self.limit.waiting) == (0, 0)


@pytest.fixture
def door():
    here = Door(2)
    yield here
    here.close()


def test_freed_slot_goes_to_a_client_before_a_refill(door):
    for name, urgent in (("a", True), ("b", True), ("refill", False), ("c", True)):
        door.dial(name, urgent=urgent)
    assert (door.inside, door.limit.under_way, door.limit.waiting) == (["a", "b"], 2, 2)
    door.finish("a")
    assert door.inside == ["b", "c"]
    door.finish("b")
    assert door.inside == ["c", "refill"]


def test_dial_killed_while_waiting_takes_no_slot(door):
    for name in "abc":
        door.dial(name)
    door.dials["c"].kill()
    door.finish("a")
    assert (door.inside, door.limit.waiting) == (["b"], 0)


def test_dial_killed_in_a_slot_frees_it(door):
    for name in "abc":
        door.dial(name)
    door.dials["a"].kill()
    settle()
    assert "c" in door.inside


def test_refills_beyond_the_rate_are_admitted_by_timer():
    door = Door(1000)
    for number in range(BURST + 5):
        door.dial(f"refill-{number}", urgent=False)
    wait_until(lambda: len(door.inside) == BURST + 5)
    door.close()
