"""A tunnel while it waits, at its lease, and at its end."""

from collections.abc import Callable, Iterator

import gevent
import pytest

from pomagent.gateway import tunnel as tunnel_module
from pomagent.gateway.tunnel import MAX_EARLY_BYTES, Tunnel
from pomagent.protocol.lifecycle import Reason, State
from pomagent.transport.stream import SCRATCH_BYTES
from tests.fakes import gateway as play
from tests.fakes.gateway import Connection, FakeGateway, accepts
from tests.gateway.destinations import pseudo_random
from tests.gateway.waiting import wait_until
from tests.integration.gateway.test_dialer import options
from tests.integration.gateway.test_tunnel_opener import Opened
from tests.integration.transport.test_tls_stream import read

pytestmark = pytest.mark.usefixtures("no_leaks")


class Warm:
    """A warm tunnel, the gateway's end of it, and how often its end was reported."""

    def __init__(self, fake: FakeGateway) -> None:
        self.ends: list[Tunnel] = []
        self.tunnel = Opened(fake).open()
        self.gateway = fake.tunnel()
        self.tunnel.keep_warm(self.ends.append)

    def everything(self, length: int) -> bytes:
        """What a session gets that leases it now: what was kept, then what the stream still has."""
        kept = bytes(self.tunnel.early)
        return kept + read(self.tunnel.stream, length - len(kept))


@pytest.fixture
def warm(fake: FakeGateway) -> Iterator[Warm]:
    running = Warm(fake)
    yield running
    running.tunnel.close(Reason.ABORTED)


class TestEarlyBytes:
    def test_that_arrive_while_it_is_warm_are_kept(self, warm: Warm) -> None:
        warm.gateway.send(b"SSH-2.0-")
        wait_until(lambda: warm.tunnel.early == b"SSH-2.0-")
        warm.gateway.send(b"test\r\n")
        wait_until(lambda: warm.tunnel.early == b"SSH-2.0-test\r\n")
        assert warm.tunnel.is_ready

    def test_follow_those_that_came_with_the_answer(self, fake: FakeGateway) -> None:
        fake.plays(accepts(early=b"first, "))
        warm = Warm(fake)
        warm.gateway.send(b"second")
        wait_until(lambda: warm.tunnel.early == b"first, second")
        warm.tunnel.close(Reason.ABORTED)

    @pytest.mark.parametrize("with_answer", [0, 100, 5000])
    @pytest.mark.parametrize(
        "length",
        [MAX_EARLY_BYTES - 1, MAX_EARLY_BYTES, MAX_EARLY_BYTES + 1, MAX_EARLY_BYTES + SCRATCH_BYTES, 500_000],
    )
    def test_up_to_the_limit_and_what_is_beyond_it_reach_the_session_in_order(
        self, fake: FakeGateway, length: int, with_answer: int
    ) -> None:
        body = b"".join(pseudo_random(length, length))
        fake.plays(accepts(early=body[:with_answer]))
        warm = Warm(fake)
        sending = gevent.Greenlet.spawn(warm.gateway.send, body[with_answer:])
        kept = min(length, MAX_EARLY_BYTES)
        wait_until(lambda: len(warm.tunnel.early) == kept)
        gevent.sleep(0.01)
        assert len(warm.tunnel.early) == kept
        warm.tunnel.lease()
        assert warm.everything(length) == body
        sending.get(timeout=5)
        warm.tunnel.close(Reason.FINISHED)

    def test_over_the_limit_do_not_keep_the_hub_busy(self, warm: Warm) -> None:
        warm.gateway.send(bytes(MAX_EARLY_BYTES + 1000))
        wait_until(lambda: len(warm.tunnel.early) == MAX_EARLY_BYTES)
        looks = []
        original = warm.tunnel.stream.recv_into
        warm.tunnel.look = lambda: looks.append(original)  # type: ignore[method-assign,assignment]
        gevent.sleep(0.02)
        assert looks == []


class TestAnEndWhileWarm:
    @pytest.mark.parametrize("end", [Connection.finish, Connection.fin, Connection.reset, Connection.close_notify])
    def test_is_told_once_whatever_kind_it_is(self, warm: Warm, end: play.Script) -> None:
        end(warm.gateway)
        wait_until(lambda: warm.ends)
        gevent.sleep(0.02)
        assert warm.ends == [warm.tunnel]

    def test_is_told_after_early_bytes_too(self, warm: Warm) -> None:
        warm.gateway.send(b"ERROR too many connections")
        warm.gateway.finish()
        wait_until(lambda: warm.ends)

    def test_that_came_before_it_was_kept_is_told_at_once(self, fake: FakeGateway) -> None:
        opened = Opened(fake)
        tunnel, ends = opened.open(), list[Tunnel]()
        fake.tunnel().finish()
        assert tunnel.stream.wait_readable(5)
        tunnel.keep_warm(ends.append)
        assert ends == [tunnel]
        tunnel.close(Reason.PEER_CLOSED)

    def test_is_not_told_any_more_once_it_is_leased(self, warm: Warm) -> None:
        warm.tunnel.lease()
        warm.gateway.finish()
        assert warm.tunnel.stream.wait_readable(5)
        gevent.sleep(0.01)
        assert warm.ends == []

    def test_is_not_told_once_it_is_closed(self, warm: Warm) -> None:
        warm.tunnel.close(Reason.EXPIRED)
        warm.gateway.finish()
        gevent.sleep(0.01)
        assert (warm.ends, warm.tunnel.reason) == ([], Reason.EXPIRED)

    @pytest.mark.parametrize("look", [Tunnel.look, Tunnel.look_again])
    def test_is_seen_by_a_look_before_the_hub_gets_to_it(self, warm: Warm, look: Callable[[Tunnel], None]) -> None:
        look(warm.tunnel)
        assert warm.ends == []
        warm.gateway.finish()
        wait_until(warm.tunnel.stream.transport.has_news)  # type: ignore[union-attr]
        look(warm.tunnel)
        assert warm.ends == [warm.tunnel]

    def test_is_seen_by_another_look_if_it_is_a_reset(self, warm: Warm) -> None:
        warm.gateway.reset()
        wait_until(warm.tunnel.stream.is_lost)
        warm.tunnel.look_again()
        assert warm.ends == [warm.tunnel]


class TestWarmBeforeTheConnect:
    @pytest.fixture
    def secured(self, fake: FakeGateway) -> Iterator[tuple[Tunnel, FakeGateway, list[Tunnel]]]:
        fake.plays(play.secures)
        tunnel, ends = Opened(fake).connector.secure(), list[Tunnel]()
        tunnel.keep_warm(ends.append)
        yield tunnel, fake, ends
        tunnel.close(Reason.ABORTED)

    def test_session_tickets_are_no_bytes(self, secured: tuple[Tunnel, FakeGateway, list[Tunnel]]) -> None:
        tunnel, fake, ends = secured
        fake.tunnel()
        gevent.sleep(0.02)
        assert (ends, tunnel.state) == ([], State.SECURED)

    def test_any_byte_is_the_end(self, secured: tuple[Tunnel, FakeGateway, list[Tunnel]]) -> None:
        tunnel, fake, ends = secured
        fake.tunnel().send(b"x")
        wait_until(lambda: ends == [tunnel])

    def test_end_is_reported(self, secured: tuple[Tunnel, FakeGateway, list[Tunnel]]) -> None:
        tunnel, fake, ends = secured
        fake.tunnel().finish()
        wait_until(lambda: ends == [tunnel])

    def test_tunnel_with_a_late_connect_was_warm_but_is_not_stale(
        self, secured: tuple[Tunnel, FakeGateway, list[Tunnel]]
    ) -> None:
        """A destination that hangs up at once must not be connected to twice."""
        tunnel, _, _ = secured
        assert (tunnel.was_warm, tunnel.may_be_stale) == (True, False)


class TestLease:
    def test_ends_the_watch_and_the_user_timeout(self, warm: Warm) -> None:
        assert options(warm.tunnel.stream.sock)["user timeout"] == 20_000
        warm.tunnel.lease()
        assert options(warm.tunnel.stream.sock) == {
            "nodelay": 1, "keepalive": 1, "idle": 15, "interval": 5, "probes": 3, "user timeout": 0,
        }  # fmt: skip
        assert warm.tunnel.state is State.ACTIVE
        assert warm.tunnel.may_be_stale

    def test_of_a_tunnel_that_did_not_wait_is_fresh(self, fake: FakeGateway) -> None:
        tunnel = Opened(fake).open()
        tunnel.lease()
        assert (tunnel.was_warm, tunnel.may_be_stale) == (False, False)
        tunnel.close(Reason.FINISHED)

    def test_happens_once(self, warm: Warm) -> None:
        warm.tunnel.lease()
        with pytest.raises(ValueError, match="cannot go from active to active"):
            warm.tunnel.lease()


class TestFinish:
    def test_says_good_bye_and_waits_for_the_gateways(self, warm: Warm) -> None:
        warm.tunnel.lease()
        warm.tunnel.stream.send(b"last words")
        finishing = gevent.Greenlet.spawn(warm.tunnel.finish)
        assert warm.gateway.receive_all() == b"last words"
        assert not finishing.ready()
        warm.gateway.finish()
        finishing.get(timeout=5)
        assert (warm.tunnel.state, warm.tunnel.reason) == (State.CLOSED, Reason.FINISHED)

    def test_does_not_wait_for_ever(self, warm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tunnel_module, "GOODBYE_TIMEOUT_S", 0.05)
        warm.tunnel.lease()
        warm.tunnel.finish()
        assert warm.tunnel.reason is Reason.FINISHED

    def test_waits_as_long_as_the_gateway_goes_on_reading(self, warm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tunnel_module, "GOODBYE_TIMEOUT_S", 0.3)
        warm.tunnel.lease()
        stream, sent = warm.tunnel.stream, 0
        while taken := stream.send(bytes(SCRATCH_BYTES)):
            sent += taken
        finishing = gevent.Greenlet.spawn(warm.tunnel.finish)
        received = 0
        while received < sent:
            received += len(warm.gateway.receive(sent // 8))
            gevent.sleep(0.1)
        assert received == sent
        warm.gateway.finish()
        finishing.get(timeout=5)

    def test_after_a_loss_is_just_the_end(self, warm: Warm) -> None:
        warm.tunnel.lease()
        warm.gateway.reset()
        warm.tunnel.finish()
        assert warm.tunnel.reason is Reason.FINISHED


def test_tunnel_knows_when_the_gateways_certificate_expires(warm: Warm) -> None:
    expires = warm.tunnel.certificate_expires
    assert expires is not None
    assert expires.endswith("Z")


def test_close_counts_once(warm: Warm) -> None:
    warm.tunnel.close(Reason.STALE)
    warm.tunnel.close(Reason.DRAINED)
    assert warm.tunnel.reason is Reason.STALE
