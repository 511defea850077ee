"""The door to a gateway: whoever waits gets in, whoever leaves is in nobody's way, and the rate needs no poll."""

import gevent
import pytest
from gevent.event import Event

from pomagent.gateway.admission import BURST
from pomagent.gateway.handshake_limit import HandshakeLimit
from tests.fakes.greenlets import settle
from tests.gateway.waiting import wait_until


class Door:
    """Dials that stay inside until they are told to go."""

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


def test_who_leaves_makes_place_for_an_application_before_a_refill(door):
    for name, urgent in (("a", True), ("b", True), ("refill", False), ("c", True)):
        door.dial(name, urgent=urgent)
    assert (door.inside, door.limit.under_way, door.limit.waiting) == (["a", "b"], 2, 2)
    door.finish("a")
    assert door.inside == ["b", "c"]
    door.finish("b")
    assert door.inside == ["c", "refill"]


def test_one_that_is_killed_while_it_waits_takes_no_place(door):
    for name in "abc":
        door.dial(name)
    door.dials["c"].kill()
    door.finish("a")
    assert (door.inside, door.limit.waiting) == (["b"], 0)


def test_one_that_is_killed_inside_gives_its_place_back(door):
    for name in "abc":
        door.dial(name)
    door.dials["a"].kill()
    settle()
    assert "c" in door.inside


def test_refills_beyond_the_rate_get_in_by_themselves():
    door = Door(1000)
    for number in range(BURST + 5):
        door.dial(f"refill-{number}", urgent=False)
    wait_until(lambda: len(door.inside) == BURST + 5)
    door.close()
