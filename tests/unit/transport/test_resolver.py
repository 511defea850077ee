"""Names to addresses: one look-up at a time, and an old answer rather than none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import gevent
import pytest

from pomagent.settings import HostPort
from pomagent.transport import resolver as module
from pomagent.transport.resolver import FRESH_S, Address, LookupFailed, Resolver
from tests.conftest import wait_until
from tests.fakes.clock import FakeClock
from tests.fakes.greenlets import caught_crashes, settle

EDGE = HostPort("edge.example.com", 443)
ONE: list[Address] = [(socket.AF_INET, ("192.0.2.1", 443))]
TWO: list[Address] = [(socket.AF_INET6, ("2001:db8::1", 443)), (socket.AF_INET, ("192.0.2.2", 443))]
PATIENCE_S = 3600.0


class FakeDns:
    """Answers what the test says, at once or once the test lets it."""

    def __init__(self) -> None:
        self.asked: list[HostPort] = []
        self.answer: list[Address] | Exception = ONE
        self.gate = threading.Event()
        self.gate.set()

    def look_up(self, target: HostPort) -> list[Address]:
        self.asked.append(target)
        self.gate.wait(60)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDns]:
    dns = FakeDns()
    monkeypatch.setattr(module, "_getaddrinfo", dns.look_up)
    yield dns
    dns.gate.set()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def resolver(clock: FakeClock, dns: FakeDns) -> Iterator[Resolver]:
    resolver = Resolver(clock)
    yield resolver
    dns.gate.set()
    resolver.close()
    resolver._threads._pool.kill()


@pytest.mark.parametrize(
    ("host", "family"),
    [("192.0.2.7", socket.AF_INET), ("2001:db8::7", socket.AF_INET6), ("::1", socket.AF_INET6)],
)
def test_an_address_needs_no_look_up(resolver, dns, host, family):
    assert resolver.resolve(HostPort(host, 443), 0) == [(family, (host, 443))]
    assert dns.asked == []


def test_a_name_has_all_its_addresses_in_the_systems_order(resolver, dns):
    dns.answer = TWO
    assert resolver.resolve(EDGE, PATIENCE_S) == TWO
    assert dns.asked == [EDGE]


def test_the_system_is_asked_for_tcp_and_its_answer_is_cut_to_host_and_port(monkeypatch):
    def fake(*asked: object, **named: object) -> list[object]:
        assert (asked, named) == (("edge.example.com", 443), {"type": socket.SOCK_STREAM})
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 443, 0, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    assert module._getaddrinfo(EDGE) == TWO[:1]


def test_one_look_up_serves_all_who_ask_meanwhile(resolver, dns):
    dns.gate.clear()
    asking = [gevent.spawn(resolver.resolve, EDGE, PATIENCE_S) for _ in range(3)]
    wait_until(lambda: dns.asked)
    settle()
    dns.gate.set()
    gevent.joinall(asking)
    assert [greenlet.value for greenlet in asking] == [ONE, ONE, ONE]
    assert dns.asked == [EDGE]


def test_another_name_does_not_wait_for_a_slow_one(resolver, dns, monkeypatch):
    dns.gate.clear()
    slow = gevent.spawn(resolver.resolve, EDGE, PATIENCE_S)
    wait_until(lambda: dns.asked)
    monkeypatch.setattr(module, "_getaddrinfo", lambda target: TWO)
    assert resolver.resolve(HostPort("other.example.com", 443), PATIENCE_S) == TWO
    assert not slow.ready()


def test_if_who_asked_first_is_killed_the_others_get_their_answer(resolver, dns):
    dns.gate.clear()
    first, second = (gevent.spawn(resolver.resolve, EDGE, PATIENCE_S) for _ in range(2))
    wait_until(lambda: dns.asked)
    first.kill()
    dns.gate.set()
    second.join()
    assert second.value == ONE


class TestFreshness:
    def test_a_fresh_answer_is_used_again(self, resolver, dns, clock):
        resolver.resolve(EDGE, PATIENCE_S)
        clock.advance(FRESH_S - 0.1)
        assert resolver.resolve(EDGE, PATIENCE_S) == ONE
        assert len(dns.asked) == 1

    def test_an_answer_is_fresh_for_so_long_and_no_longer(self, resolver, dns, clock):
        resolver.resolve(EDGE, PATIENCE_S)
        dns.answer = TWO
        clock.advance(FRESH_S)
        assert resolver.resolve(EDGE, PATIENCE_S) == TWO
        assert len(dns.asked) == 2

    def test_a_failure_is_not_remembered(self, resolver, dns):
        dns.answer = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        with pytest.raises(LookupFailed):
            resolver.resolve(EDGE, PATIENCE_S)
        dns.answer = ONE
        assert resolver.resolve(EDGE, PATIENCE_S) == ONE


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "cause"),
        [
            (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
            (OSError("strange"), "strange"),
            (UnicodeError("encoding with 'idna' codec failed"), "not a host name"),
        ],
        ids=["unknown", "without words", "not a name"],
    )
    def test_a_name_without_an_address_is_told_with_its_cause(self, resolver, dns, error, cause):
        dns.answer = error
        with pytest.raises(LookupFailed, match=f"^no address for edge.example.com: {cause}$"):
            resolver.resolve(EDGE, PATIENCE_S)

    def test_all_who_wait_learn_of_it(self, resolver, dns):
        dns.gate.clear()
        dns.answer = OSError("strange")

        def ask() -> str:
            with pytest.raises(LookupFailed) as failed:
                resolver.resolve(EDGE, PATIENCE_S)
            return str(failed.value)

        asking = [gevent.spawn(ask) for _ in range(2)]
        wait_until(lambda: dns.asked)
        settle()
        dns.gate.set()
        gevent.joinall(asking)
        assert [greenlet.value for greenlet in asking] == ["no address for edge.example.com: strange"] * 2

    def test_a_resolver_that_does_not_answer_in_time(self, resolver, dns):
        dns.gate.clear()
        with pytest.raises(LookupFailed, match=r"^no address for edge.example.com: not within 0 s$"):
            resolver.resolve(EDGE, 0)

    def test_a_bug_in_a_look_up_leaves_nobody_waiting(self, resolver, dns):
        dns.answer = ZeroDivisionError("a bug")
        with caught_crashes(), pytest.raises(LookupFailed, match="broken off"):
            resolver.resolve(EDGE, PATIENCE_S)
        dns.answer = ONE
        assert resolver.resolve(EDGE, PATIENCE_S) == ONE

    def test_closing_leaves_nobody_waiting(self, resolver, dns):
        dns.gate.clear()

        def ask() -> str:
            with pytest.raises(LookupFailed) as failed:
                resolver.resolve(EDGE, PATIENCE_S)
            return str(failed.value)

        asking = gevent.spawn(ask)
        wait_until(lambda: dns.asked)
        resolver.close()
        asking.join()
        assert asking.value == "no address for edge.example.com: the look-up was broken off"


class TestStaleAnswers:
    @pytest.fixture
    def resolver(self, resolver, dns, clock) -> Resolver:
        """One that knows an answer which is no longer fresh."""
        resolver.resolve(EDGE, PATIENCE_S)
        clock.advance(FRESH_S)
        return resolver

    def test_after_a_failure_it_is_better_than_none(self, resolver, dns):
        dns.answer = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        assert resolver.resolve(EDGE, PATIENCE_S) == ONE

    def test_without_an_answer_in_time_it_is_better_than_none(self, resolver, dns):
        dns.gate.clear()
        assert resolver.resolve(EDGE, 0) == ONE

    def test_a_look_up_that_takes_too_long_still_counts_for_the_next(self, resolver, dns):
        dns.gate.clear()
        resolver.resolve(EDGE, 0)
        dns.answer = TWO
        dns.gate.set()
        assert resolver.resolve(EDGE, PATIENCE_S) == TWO
        assert len(dns.asked) == 2
