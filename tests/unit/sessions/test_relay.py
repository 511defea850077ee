"""The relay over streams in memory: what reaches whom, in which order, who ends it, and with which word."""

from collections.abc import Callable, Iterator
from itertools import pairwise, permutations
from typing import Any

import gevent
import pytest

from pomagent.errors import StreamLost, StreamReset
from pomagent.protocol.http2.frames import Code
from pomagent.runtime.greenlets import GreenletReuse
from pomagent.sessions import read_ahead, relay
from pomagent.sessions.ends import (
    CLIENT_ABORTED,
    CLIENT_FINISHED,
    CLIENT_LOST,
    CRASHED,
    DRAINED,
    GATEWAY_FINISHED,
    GATEWAY_LOST,
    IDLE,
    End,
)
from pomagent.sessions.fair_share import TURN_BYTES, FairShare
from pomagent.sessions.relay import Relay
from pomagent.transport.stream import SCRATCH_BYTES
from tests.fakes.clock import FakeClock
from tests.fakes.greenlets import caught_crashes, settle
from tests.fakes.streams import FakeStream, stream_pair
from tests.gateway.destinations import pseudo_random
from tests.gateway.waiting import wait_until

MIB = 1024 * 1024
ENDLESS = 1 << 30

GREENLETS = GreenletReuse()


class Session:
    """A relay between two pairs of streams: ``application`` and ``gateway`` are the ends that a test plays."""

    def __init__(self, client_capacity: int = 64 * 1024, tunnel_capacity: int = 64 * 1024, **changes: Any) -> None:
        self.client, self.application = stream_pair(client_capacity)
        self.tunnel, self.gateway = stream_pair(tunnel_capacity)
        self.closed: bool | None = False
        self.relay = Relay(
            self.client, self.tunnel,
            **{"half_close": "auto", "half_close_timeout_s": 60.0, "has_closed": lambda: self.closed,
               "fair_share": FairShare(), "greenlets": GREENLETS, **changes},
        )  # fmt: skip
        self.after: list[str] = []
        self._greenlet: gevent.Greenlet | None = None

    def start(self, early: bytes = b"") -> "Session":
        self._greenlet = gevent.Greenlet(self._run, early)
        self._greenlet.start()
        return self

    def end(self, timeout_s: float = 10) -> End:
        """How it ended, once it has."""
        assert self._greenlet is not None
        result = self._greenlet.get(timeout=timeout_s)
        assert isinstance(result, End), f"something hit the caller: {result!r}"
        return result

    @property
    def has_ended(self) -> bool:
        return self._greenlet is not None and self._greenlet.ready()

    def kill(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    def _run(self, early: bytes) -> End:
        """As a session does: whatever comes after the relay must not be hit by what was meant for the relay."""
        end = self.relay.run(early)
        for _ in range(30):
            gevent.sleep(0)
        gevent.sleep(0.002)
        self.after.append("went on")
        return end


@pytest.fixture
def session() -> Iterator[Session]:
    running = Session()
    yield running
    running.kill()


class TestBothWays:
    def test_what_each_side_says_reaches_the_other(self, session: Session) -> None:
        session.start()
        session.application.write(b"question")
        assert session.gateway.read(8) == b"question"
        session.gateway.write(b"answer")
        assert session.application.read(6) == b"answer"

    def test_early_bytes_come_first(self, session: Session) -> None:
        session.gateway.write(b", and then some")
        session.start(early=b"SSH-2.0-test")
        assert session.application.read(27) == b"SSH-2.0-test, and then some"

    def test_a_tunnel_that_does_not_take_the_first_bytes_still_brings_what_it_has(self) -> None:
        session = Session(tunnel_capacity=1000)
        session.application.write(bytes(5000))
        session.start()
        session.gateway.write(b"answer")
        assert session.application.read(6) == b"answer"
        assert session.gateway.read(5000) == bytes(5000)
        session.kill()

    def test_megabytes_both_ways_arrive_unchanged(self) -> None:
        session = Session(client_capacity=10_007, tunnel_capacity=7_001).start()
        up, down = b"".join(pseudo_random(1, 3 * MIB)), b"".join(pseudo_random(2, 3 * MIB))
        writers = [
            gevent.Greenlet.spawn(session.application.write, up),
            gevent.Greenlet.spawn(session.gateway.write, down),
        ]
        readers = [
            gevent.Greenlet.spawn(session.gateway.read, len(up)),
            gevent.Greenlet.spawn(session.application.read, len(down)),
        ]
        gevent.joinall(writers + readers, timeout=30)
        assert (readers[0].value == up, readers[1].value == down) == (True, True)
        session.gateway.send_eof()
        assert session.end() == GATEWAY_FINISHED
        assert (session.relay.bytes_up, session.relay.bytes_down) == (len(up), len(down))

    def test_two_sessions_share_a_scratch_buffer_and_nothing_else(self) -> None:
        fair_share = FairShare()
        sessions = [Session(client_capacity=999, tunnel_capacity=777, fair_share=fair_share).start() for _ in range(2)]
        bodies = [b"".join(pseudo_random(seed, MIB)) for seed in range(4)]
        work = []
        for number, running in enumerate(sessions):
            gevent.Greenlet.spawn(running.application.write, bodies[number])
            gevent.Greenlet.spawn(running.gateway.write, bodies[number + 2])
            work.append(gevent.Greenlet.spawn(running.gateway.read, MIB))
            work.append(gevent.Greenlet.spawn(running.application.read, MIB))
        gevent.joinall(work, timeout=30)
        assert [w.value == bodies[i] for w, i in zip(work, (0, 2, 1, 3), strict=True)] == [True] * 4
        for running in sessions:
            running.kill()

    def test_the_first_byte_has_its_time(self) -> None:
        clock = FakeClock(5.0)
        session = Session(clock=clock).start()
        settle()
        assert session.relay.first_byte_at is None
        clock.advance(2)
        session.gateway.write(b"x")
        session.application.read(1)
        clock.advance(2)
        session.gateway.write(b"y")
        session.application.read(1)
        assert session.relay.first_byte_at == 7.0
        session.kill()


class TestASlowClient:
    def test_is_read_ahead_for_by_a_bounded_amount_and_then_the_tunnel_waits(self) -> None:
        session = Session(client_capacity=1000, tunnel_capacity=SCRATCH_BYTES).start()
        writer = gevent.Greenlet.spawn(session.gateway.write, bytes(2 * MIB))
        settle()
        assert not writer.ready()
        assert session.relay.bytes_down >= read_ahead.READ_AHEAD_BYTES
        assert session.relay.bytes_down <= 1000 + read_ahead.READ_AHEAD_BYTES + SCRATCH_BYTES
        assert len(session.tunnel.inbox) == SCRATCH_BYTES
        session.kill()
        writer.kill()

    def test_gets_the_rest_once_it_reads_again(self) -> None:
        session = Session(client_capacity=1000).start()
        body = b"".join(pseudo_random(3, 2 * MIB))
        gevent.Greenlet.spawn(session.gateway.write, body)
        settle()
        assert session.application.read(len(body)) == body
        session.kill()

    def test_loses_nothing_of_what_came_before_the_gateway_ended(self) -> None:
        session = Session(client_capacity=1000, tunnel_capacity=MIB).start()
        body = b"".join(pseudo_random(4, 900_000))
        session.gateway.write(body)
        session.gateway.send_eof()
        settle()
        assert not session.has_ended
        assert session.application.read(len(body)) == body
        assert session.end() == GATEWAY_FINISHED

    def test_loses_nothing_of_what_came_before_the_gateway_was_lost(self) -> None:
        session = Session(client_capacity=1000, tunnel_capacity=MIB).start()
        body = b"".join(pseudo_random(5, 200_000))
        session.gateway.write(body)
        session.tunnel.lose("closed without close_notify")
        settle()
        assert session.application.read(len(body)) == body
        assert session.end() == GATEWAY_LOST

    def test_that_takes_nothing_for_long_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(read_ahead, "LAST_BYTES_TIMEOUT_S", 0.01)
        session = Session(client_capacity=10).start()
        session.gateway.write(bytes(1000))
        session.gateway.send_eof()
        assert session.end() == CLIENT_LOST

    def test_that_goes_on_taking_a_little_is_not_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(read_ahead, "LAST_BYTES_TIMEOUT_S", 0.2)
        session = Session(client_capacity=10).start()
        session.gateway.write(bytes(100))
        session.gateway.send_eof()
        for _ in range(9):
            gevent.sleep(0.05)
            assert len(session.application.read(10)) == 10
        assert len(session.application.read(10)) == 10
        assert session.end() == GATEWAY_FINISHED

    def test_many_small_pieces_cost_no_more_than_their_bytes(self) -> None:
        client, _ = stream_pair(0)
        ahead = read_ahead.ReadAhead(client, lambda run: None, lambda: None)
        for _ in range(10_000):
            ahead.put(memoryview(b"x"))
        assert ahead._kept.__sizeof__() < 2 * 10_000 + 100

    def test_can_talk_while_it_does_not_listen(self) -> None:
        session = Session(client_capacity=1000).start()
        writer = gevent.Greenlet.spawn(session.gateway.write, bytes(MIB))
        settle()
        session.application.write(b"stop")
        assert session.gateway.read(4) == b"stop"
        session.kill()
        writer.kill()


class TestASlowGateway:
    def test_makes_the_client_wait(self) -> None:
        session = Session(client_capacity=SCRATCH_BYTES, tunnel_capacity=1000)
        session.gateway.capacity = 1000
        session.start()
        writer = gevent.Greenlet.spawn(session.application.write, bytes(MIB))
        settle()
        assert not writer.ready()
        assert session.relay.bytes_up <= SCRATCH_BYTES
        session.kill()
        writer.kill()


class TestFairness:
    """The clock is the event loop itself: bytes copied from one of its turns to the next, whatever a turn takes."""

    @staticmethod
    def _most_in_one_turn(session: Session, copied: Callable[[], int]) -> int:
        seen = [0]
        each_turn = gevent.get_hub().loop.check()
        each_turn.start(lambda: seen.append(copied()))
        session.start()
        session.end(60)
        each_turn.stop()
        each_turn.close()
        seen.append(copied())
        return max(after - before for before, after in pairwise(seen))

    def test_a_stream_down_that_never_pauses_gives_way_after_each_slice(self) -> None:
        session = Session(client_capacity=ENDLESS, tunnel_capacity=ENDLESS)
        session.gateway.write(bytes(40 * MIB))
        session.gateway.send_eof()
        most = self._most_in_one_turn(session, lambda: session.relay.bytes_down)
        assert session.relay.bytes_down == 40 * MIB
        assert most <= 2 * TURN_BYTES

    def test_a_stream_up_that_never_pauses_gives_way_after_each_slice(self) -> None:
        session = Session(client_capacity=ENDLESS, tunnel_capacity=ENDLESS, half_close="close")
        session.application.write(bytes(40 * MIB))
        session.application.send_eof()
        most = self._most_in_one_turn(session, lambda: session.relay.bytes_up)
        assert session.relay.bytes_up == 40 * MIB
        assert most <= 2 * TURN_BYTES


class TestTheClientsEnd:
    def test_of_a_client_that_closed_ends_the_session_at_once(self, session: Session) -> None:
        session.closed = True
        session.start()
        session.application.write(b"last words")
        session.application.send_eof()
        assert session.end() == CLIENT_FINISHED
        assert session.gateway.read(10) == b"last words"

    def test_is_asked_about_again_since_the_fin_comes_before_the_socket_is_let_go(self, session: Session) -> None:
        session.start()
        session.application.send_eof()
        settle()
        assert not session.has_ended
        session.closed = True
        assert session.end() == CLIENT_FINISHED

    def test_of_a_client_that_only_shut_down_waits_for_the_answer(self, session: Session) -> None:
        session.start()
        session.application.write(b"question")
        session.application.send_eof()
        assert session.gateway.read(8) == b"question"
        gevent.sleep(0.05)
        session.gateway.write(b"answer")
        session.gateway.send_eof()
        assert session.application.read(6) == b"answer"
        assert session.end() == GATEWAY_FINISHED

    def test_without_a_byte_the_linger_ends_by_its_timeout(self) -> None:
        clock = FakeClock()
        session = Session(clock=clock, half_close_timeout_s=60).start()
        session.application.send_eof()
        settle()
        clock.advance(59.9)
        gevent.sleep(0.2)
        assert not session.has_ended
        clock.advance(0.2)
        assert session.end() == CLIENT_FINISHED

    def test_each_byte_of_the_answer_prolongs_the_linger(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(relay, "LOOK_AGAIN_S", (0.001,))
        clock = FakeClock()
        session = Session(clock=clock, half_close_timeout_s=60).start()
        session.application.send_eof()
        for _ in range(3):
            settle()
            clock.advance(59)
            session.gateway.write(b"x")
            assert session.application.read(1) == b"x"
            gevent.sleep(0.02)  # until it has looked again
        assert not session.has_ended
        session.kill()

    def test_where_nobody_can_know_the_linger_is_short(self) -> None:
        clock = FakeClock()
        session = Session(clock=clock, half_close_timeout_s=60)
        session.closed = None
        session.start()
        session.application.send_eof()
        settle()
        assert not session.has_ended
        clock.advance(relay.REMOTE_LINGER_S + 0.1)
        assert session.end() == CLIENT_FINISHED

    def test_a_tunnel_that_carries_it_has_the_clients_end_and_still_brings_the_answer(self) -> None:
        session = Session(carries_half_close=True).start()
        session.application.write(b"question")
        session.application.send_eof()
        assert session.gateway.read_to_end() == b"question"
        session.gateway.write(b"answer")
        session.gateway.send_eof()
        assert session.application.read(6) == b"answer"
        assert session.end() == GATEWAY_FINISHED

    @pytest.mark.parametrize("half_close", ["linger", "close"])
    def test_it_is_not_carried_where_the_route_says_so(self, half_close: str) -> None:
        clock = FakeClock()
        session = Session(carries_half_close=True, half_close=half_close, clock=clock, half_close_timeout_s=60).start()
        session.application.send_eof()
        settle()
        assert not session.gateway.has_ended
        clock.advance(61)
        assert session.end() == CLIENT_FINISHED

    def test_where_nobody_can_know_a_carried_one_has_its_whole_time(self) -> None:
        clock = FakeClock()
        session = Session(clock=clock, half_close_timeout_s=60, carries_half_close=True)
        session.closed = None
        session.start()
        session.application.send_eof()
        settle()
        clock.advance(59.9)
        gevent.sleep(0.2)
        assert not session.has_ended
        clock.advance(0.2)
        assert session.end() == CLIENT_FINISHED

    def test_a_tunnel_that_is_lost_while_it_is_carried_is_the_gateways_end(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = Session(carries_half_close=True)

        def lose() -> None:
            session.tunnel.lose("broken pipe")
            raise StreamLost("broken pipe")

        monkeypatch.setattr(session.tunnel, "send_eof", lose)
        session.start()
        session.application.send_eof()
        end = session.end()
        assert (end, end.cause) == (GATEWAY_LOST, "broken pipe")

    @pytest.mark.parametrize(
        ("loss", "reason"),
        [
            (StreamReset("reset by the gateway: CONNECT_ERROR", Code.CONNECT_ERROR), "aborted"),
            (StreamReset("reset by the gateway: CANCEL", Code.CANCEL), "lost"),
            (StreamLost("connection reset by peer"), "lost"),
        ],
    )
    def test_a_destination_that_reset_is_told_from_a_tunnel_that_was_lost(self, loss: StreamLost, reason: str) -> None:
        session = Session().start()
        session.tunnel.loss = loss
        session.tunnel.note()
        end = session.end()
        assert (end.side, end.reason, end.is_clean, end.cause) == (GATEWAY_LOST.side, reason, False, str(loss))

    def test_with_half_close_close_nothing_is_asked(self) -> None:
        def never() -> bool:
            raise AssertionError("asked")

        session = Session(half_close="close", has_closed=never).start()
        session.application.send_eof()
        assert session.end() == CLIENT_FINISHED

    def test_bytes_that_a_lingering_client_has_not_taken_keep_it_alive(self) -> None:
        clock = FakeClock()
        session = Session(client_capacity=10, clock=clock, half_close_timeout_s=60).start()
        session.application.send_eof()
        session.gateway.write(bytes(100))
        settle()
        clock.advance(100)
        gevent.sleep(0.1)
        assert not session.has_ended
        session.kill()

    def test_by_a_reset_aborts(self, session: Session) -> None:
        session.start()
        settle()
        session.client.lose()
        assert session.end() == CLIENT_ABORTED


class TestALostClient:
    def test_still_has_everything_delivered_that_it_had_sent(self) -> None:
        session = Session(client_capacity=ENDLESS)
        session.gateway.capacity = 1000
        body = b"".join(pseudo_random(6, 500_000))
        session.start()
        session.application.write(body)
        session.application.send_eof()
        settle()
        session.client.refuses = True
        session.gateway.write(b"an answer that nobody reads")
        assert session.gateway.read(len(body)) == body
        assert session.end() == CLIENT_ABORTED

    def test_does_not_clog_the_tunnel_meanwhile(self) -> None:
        """The destination answers while it reads: if the answer were left unread, it would stop reading."""
        session = Session(client_capacity=ENDLESS, tunnel_capacity=1000)
        session.gateway.capacity = 1000
        session.start()
        session.application.write(bytes(100_000))
        session.client.refuses = True
        echoed = gevent.Greenlet.spawn(lambda: [session.gateway.write(session.gateway.read(1000)) for _ in range(100)])
        echoed.join(10)
        assert echoed.successful()
        assert session.end() == CLIENT_ABORTED

    def test_that_was_reading_slowly_frees_what_was_kept_for_it(self) -> None:
        session = Session(client_capacity=1000, tunnel_capacity=MIB).start()
        session.gateway.write(bytes(MIB))
        settle()
        session.client.lose()
        assert session.end() == CLIENT_ABORTED

    def test_whose_source_is_silent_ends_the_session_as_well(self, session: Session) -> None:
        """Standard output without a reader, while a terminal is standard input."""
        session.start()
        settle()
        session.client.refuses = True
        session.gateway.write(b"x")
        assert session.end() == CLIENT_ABORTED

    def test_after_the_way_up_broke_ends_the_session(self, session: Session) -> None:
        session.tunnel.refuses = True
        session.start()
        settle()
        session.application.write(b"x")
        settle()
        session.tunnel.loss = None  # the way down is still good
        assert not session.has_ended
        session.client.lose()
        session.gateway.write(b"more")
        assert session.end() == CLIENT_ABORTED


class TestTheGatewaysEnd:
    def test_is_finished_after_an_orderly_end(self, session: Session) -> None:
        session.start()
        session.gateway.write(b"bye")
        session.gateway.send_eof()
        assert session.end() == GATEWAY_FINISHED
        assert session.application.read(3) == b"bye"

    def test_is_lost_after_any_other(self, session: Session) -> None:
        session.start()
        settle()
        session.tunnel.lose()
        assert session.end() == GATEWAY_LOST
        assert not session.end().is_clean

    def test_a_broken_way_up_still_delivers_what_is_on_its_way_down(self, session: Session) -> None:
        session.start()
        settle()
        session.tunnel.refuses = True
        session.application.write(b"too late")
        settle()
        session.tunnel.loss = None
        session.gateway.write(b"the answer")
        session.gateway.send_eof()
        assert session.end() == GATEWAY_FINISHED
        assert session.application.read(10) == b"the answer"

    def test_leaves_both_streams_open_for_whoever_owns_them(self, session: Session) -> None:
        session.start()
        session.gateway.send_eof()
        session.end()
        assert not session.client.is_closed
        assert not session.tunnel.is_closed


class TestStop:
    def test_ends_a_silent_session_with_its_reason(self, session: Session) -> None:
        session.start()
        settle()
        session.relay.stop(IDLE)
        assert session.end() == IDLE

    def test_the_first_reason_counts(self, session: Session) -> None:
        session.start()
        settle()
        session.relay.stop(IDLE)
        session.relay.stop(DRAINED)
        assert session.end() == IDLE

    def test_before_it_runs_nothing_is_copied(self, session: Session) -> None:
        session.relay.stop(DRAINED)
        session.start(early=b"hello")
        assert session.end() == DRAINED
        assert session.application.inbox == b""

    def test_while_early_bytes_wait_for_a_client_that_does_not_read(self) -> None:
        session = Session(client_capacity=0).start(early=bytes(16_384))
        settle()
        session.relay.stop(DRAINED)
        assert session.end() == DRAINED

    def test_while_the_last_bytes_are_delivered(self) -> None:
        session = Session(client_capacity=10).start()
        session.gateway.write(bytes(100))
        session.gateway.send_eof()
        settle()
        session.relay.stop(DRAINED)
        assert session.end() == DRAINED

    def test_while_it_lingers_after_the_clients_end(self, session: Session) -> None:
        session.start()
        session.application.send_eof()
        settle()
        session.relay.stop(DRAINED)
        assert session.end() == DRAINED

    @pytest.mark.parametrize(
        "moments", list(permutations(["stop", "client lost", "gateway ends", "gateway says", "stop again"], 3))
    )
    @pytest.mark.parametrize("rounds", [0, 1, 2])
    def test_never_hits_what_its_caller_does_next_whatever_happens_at_the_same_time(
        self, session: Session, moments: tuple[str, ...], rounds: int
    ) -> None:
        events = {
            "stop": lambda: session.relay.stop(IDLE),
            "stop again": lambda: session.relay.stop(DRAINED),
            "client lost": session.client.lose,
            "gateway ends": session.gateway.send_eof,
            "gateway says": lambda: session.gateway.send(b"x"),
        }
        session.start()
        settle()
        for moment in moments:
            events[moment]()
            for _ in range(rounds):
                gevent.sleep(0)
        assert session.end() in (IDLE, DRAINED, CLIENT_ABORTED, GATEWAY_FINISHED)
        assert session.after == ["went on"]

    @pytest.mark.parametrize("rounds", range(8))
    def test_at_any_moment_of_a_short_session_leaves_its_caller_alone(self, rounds: int) -> None:
        session = Session(client_capacity=10)
        session.gateway.write(bytes(15))
        session.gateway.send_eof()
        session.application.send_eof()
        session.start(early=b"early")
        for _ in range(rounds):
            gevent.sleep(0)
        session.relay.stop(DRAINED)
        gevent.Greenlet.spawn(session.application.read, 20)
        assert session.end() in (DRAINED, GATEWAY_FINISHED, CLIENT_FINISHED)
        assert session.after == ["went on"]


class TestABug:
    def test_on_the_way_down_ends_the_session(self, session: Session) -> None:
        def broken(buffer: memoryview) -> int:
            raise ZeroDivisionError

        session.tunnel.recv_into = broken  # type: ignore[method-assign]
        with caught_crashes() as crashes:
            session.start()
            assert session.end() == CRASHED
        assert [type(crash) for crash in crashes] == [ZeroDivisionError]

    def test_on_the_way_up_reaches_the_caller_and_ends_the_way_down(self) -> None:
        session = Session()

        def broken(buffer: memoryview) -> int:
            raise ZeroDivisionError

        session.client.recv_into = broken  # type: ignore[method-assign]
        with pytest.raises(ZeroDivisionError):
            session.relay.run(b"")
        assert not session.relay._tasks


def test_a_killed_caller_leaves_no_greenlet_behind(session: Session) -> None:
    session.start()
    settle()
    session.kill()
    assert not session.relay._tasks


def test_an_idle_session_holds_no_bytes(session: Session) -> None:
    session.start()
    session.gateway.write(bytes(60_000))
    session.application.read(60_000)
    settle()
    assert session.relay._ahead._kept.__sizeof__() < 100
    assert wait_until(lambda: session.relay.bytes_down == 60_000)


def test_streams_in_memory_keep_the_promises_of_a_stream() -> None:
    ours, theirs = stream_pair(4)
    assert ours.recv_into(memoryview(bytearray(4))) is None
    assert ours.send(b"12345") == 4
    assert ours.send(b"5") == 0
    assert theirs.read(4) == b"1234"
    ours.send_eof()
    assert theirs.recv_into(memoryview(bytearray(4))) == 0
    assert isinstance(ours, FakeStream)
    theirs.abort()
    with pytest.raises(StreamLost):
        ours.recv_into(memoryview(bytearray(4)))
