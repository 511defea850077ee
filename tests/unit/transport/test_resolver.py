"""Names to addresses: literals, the causes of failures, and answers that are kept."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event

from pomagent.settings import HostPort
from pomagent.transport.resolver import FRESH_S, Address, LookupFailed, Resolver, getaddrinfo
from tests.fakes.clock import FakeClock
from tests.fakes.greenlets import caught_crashes, settle

EDGE = HostPort("edge.example.com", 443)
ONE: list[Address] = [(socket.AF_INET, ("192.0.2.1", 443))]
TWO: list[Address] = [(socket.AF_INET6, ("2001:db8::1", 443)), (socket.AF_INET, ("192.0.2.2", 443))]
PATIENCE_S = 3600.0


class FakeDns:
    """Returns the test's answer, at once or when the test opens it."""

    def __init__(self) -> None:
        self.asked: list[HostPort] = []
        self.answer: list[Address] | Exception = ONE
        self.is_open = Event()
        self.is_open.set()

    def look_up(self, target: HostPort) -> list[Address]:
        self.asked.append(target)
        self.is_open.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def dns() -> FakeDns:
    return FakeDns()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def resolver(clock: FakeClock, dns: FakeDns) -> Iterator[Resolver]:
    resolver = Resolver(clock, dns.look_up)
    yield resolver
    resolver.close()


@pytest.mark.parametrize(
    ("host", "family"),
    [("192.0.2.7", socket.AF_INET), ("2001:db8::7", socket.AF_INET6), ("::1", socket.AF_INET6)],
)
def test_literal_address_needs_no_look_up(resolver, dns, host, family):
    assert resolver.resolve(HostPort(host, 443), 0) == [(family, (host, 443))]
    assert dns.asked == []


def test_name_has_all_its_addresses_in_the_systems_order(resolver, dns):
    dns.answer = TWO
    assert resolver.resolve(EDGE, PATIENCE_S) == TWO
    assert dns.asked == [EDGE]


def test_look_up_runs_in_a_thread(monkeypatch):
    """A blocked look-up must not block the hub."""
    hub_thread = threading.get_ident()
    seen: list[int] = []

    def fake(*_: object, **__: object) -> list[object]:
        seen.append(threading.get_ident())
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    resolver = Resolver()
    assert resolver.resolve(EDGE, PATIENCE_S) == ONE
    assert hub_thread not in seen
    resolver.close()


def test_system_is_asked_for_tcp_and_its_answer_is_cut_to_host_and_port(monkeypatch):
    def fake(*asked: object, **named: object) -> list[object]:
        assert (asked, named) == (("edge.example.com", 443), {"type": socket.SOCK_STREAM})
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 443, 0, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    assert getaddrinfo(EDGE) == TWO[:1]


def test_one_look_up_serves_all_callers_that_wait(resolver, dns):
    dns.is_open.clear()
    callers = [gevent.spawn(resolver.resolve, EDGE, PATIENCE_S) for _ in range(3)]
    settle()
    dns.is_open.set()
    gevent.joinall(callers)
    assert [caller.value for caller in callers] == [ONE, ONE, ONE]
    assert dns.asked == [EDGE]


class TestFreshness:
    def test_answer_is_reused_until_it_expires(self, resolver, dns, clock):
        resolver.resolve(EDGE, PATIENCE_S)
        dns.answer = TWO
        clock.advance(FRESH_S - 0.1)
        assert resolver.resolve(EDGE, PATIENCE_S) == ONE
        clock.advance(0.1)
        assert resolver.resolve(EDGE, PATIENCE_S) == TWO
        assert len(dns.asked) == 2

    def test_failure_is_not_remembered(self, resolver, dns):
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
        ids=["unknown", "without strerror", "not a name"],
    )
    def test_cause_is_in_the_error(self, resolver, dns, error, cause):
        dns.answer = error
        with pytest.raises(LookupFailed, match=f"^no address for edge.example.com: {cause}$"):
            resolver.resolve(EDGE, PATIENCE_S)

    def test_timeout_is_in_the_error(self, resolver, dns):
        dns.is_open.clear()
        with pytest.raises(LookupFailed, match=r"^no address for edge.example.com: not within 0 s$"):
            resolver.resolve(EDGE, 0)

    def test_crash_of_a_look_up_frees_its_caller(self, resolver, dns):
        dns.answer = ZeroDivisionError("a bug")
        with caught_crashes(), pytest.raises(LookupFailed, match="interrupted"):
            resolver.resolve(EDGE, PATIENCE_S)
        dns.answer = ONE
        assert resolver.resolve(EDGE, PATIENCE_S) == ONE

    def test_close_frees_a_caller_that_waits(self, resolver, dns):
        dns.is_open.clear()

        def ask() -> str:
            with pytest.raises(LookupFailed) as failed:
                resolver.resolve(EDGE, PATIENCE_S)
            return str(failed.value)

        caller = gevent.spawn(ask)
        settle()
        resolver.close()
        assert caller.get(timeout=10) == "no address for edge.example.com: the look-up was interrupted"


class TestStaleAnswer:
    @pytest.fixture
    def resolver(self, resolver, dns, clock) -> Resolver:
        """A resolver with an expired answer."""
        resolver.resolve(EDGE, PATIENCE_S)
        clock.advance(FRESH_S)
        return resolver

    def test_is_used_after_a_failure(self, resolver, dns):
        dns.answer = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        assert resolver.resolve(EDGE, PATIENCE_S) == ONE

    def test_is_used_after_the_timeout(self, resolver, dns):
        dns.is_open.clear()
        assert resolver.resolve(EDGE, 0) == ONE
