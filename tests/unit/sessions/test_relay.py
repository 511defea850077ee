"""The relay over streams in memory: delivery, order, fairness, and the reason of each end."""

from collections.abc import Callable, Iterator
from itertools import pairwise, permutations

import gevent
import pytest

from pomagent.errors import StreamLost, StreamReset
from pomagent.protocol.http2.frames import Code
from pomagent.sessions import read_ahead
from pomagent.sessions.ends import (
    CLIENT_ABORTED,
    CLIENT_FINISHED,
    CLIENT_LOST,
    CRASHED,
    DRAINED,
    GATEWAY_FINISHED,
    GATEWAY_LOST,
    IDLE,
)
from pomagent.sessions.fair_share import TURN_BYTES, FairShare
from pomagent.transport.stream import SCRATCH_BYTES
from tests.fakes.clock import FakeClock
from tests.fakes.greenlets import caught_crashes, settle
from tests.fakes.relays import RunningRelay
from tests.fakes.streams import FakeStream, stream_pair
from tests.gateway.destinations import pseudo_random
from tests.gateway.waiting import wait_until

MIB = 1024 * 1024
ENDLESS = 1 << 30


@pytest.fixture
def relayed() -> Iterator[RunningRelay]:
    running = RunningRelay()
    yield running
    running.kill()


class TestBothDirections:
    def test_bytes_of_each_side_reach_the_other(self, relayed: RunningRelay) -> None:
        relayed.start()
        relayed.application.write(b"question")
        assert relayed.gateway.read(8) == b"question"
        relayed.gateway.write(b"answer")
        assert relayed.application.read(6) == b"answer"

    def test_early_bytes_come_first(self, relayed: RunningRelay) -> None:
        relayed.gateway.write(b", and then some")
        relayed.start(early=b"SSH-2.0-test")
        assert relayed.application.read(27) == b"SSH-2.0-test, and then some"

    def test_answer_arrives_although_the_tunnel_does_not_accept_the_first_bytes(self) -> None:
        relayed = RunningRelay(tunnel_capacity=1000)
        relayed.application.write(bytes(5000))
        relayed.start()
        relayed.gateway.write(b"answer")
        assert relayed.application.read(6) == b"answer"
        assert relayed.gateway.read(5000) == bytes(5000)
        relayed.kill()

    def test_megabytes_in_both_directions_arrive_unchanged(self) -> None:
        relayed = RunningRelay(client_capacity=10_007, tunnel_capacity=7_001).start()
        up, down = b"".join(pseudo_random(1, 3 * MIB)), b"".join(pseudo_random(2, 3 * MIB))
        writers = [
            gevent.Greenlet.spawn(relayed.application.write, up),
            gevent.Greenlet.spawn(relayed.gateway.write, down),
        ]
        readers = [
            gevent.Greenlet.spawn(relayed.gateway.read, len(up)),
            gevent.Greenlet.spawn(relayed.application.read, len(down)),
        ]
        gevent.joinall(writers + readers, timeout=30)
        assert (readers[0].value == up, readers[1].value == down) == (True, True)
        relayed.gateway.send_eof()
        assert relayed.end() == GATEWAY_FINISHED
        assert (relayed.relay.bytes_up, relayed.relay.bytes_down) == (len(up), len(down))

    def test_sessions_that_share_a_scratch_buffer_do_not_mix_their_bytes(self) -> None:
        fair_share = FairShare()
        sessions = [
            RunningRelay(client_capacity=999, tunnel_capacity=777, fair_share=fair_share).start() for _ in range(2)
        ]
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

    def test_time_of_the_first_byte_down_is_recorded_once(self) -> None:
        clock = FakeClock(5.0)
        relayed = RunningRelay(clock=clock).start()
        settle()
        assert relayed.relay.first_byte_at is None
        clock.advance(2)
        relayed.gateway.write(b"x")
        relayed.application.read(1)
        clock.advance(2)
        relayed.gateway.write(b"y")
        relayed.application.read(1)
        assert relayed.relay.first_byte_at == 7.0
        relayed.kill()


class TestSlowClient:
    def test_read_ahead_is_bounded_and_then_the_tunnel_waits(self) -> None:
        relayed = RunningRelay(client_capacity=1000, tunnel_capacity=SCRATCH_BYTES).start()
        writer = gevent.Greenlet.spawn(relayed.gateway.write, bytes(2 * MIB))
        settle()
        assert not writer.ready()
        assert relayed.relay.bytes_down >= read_ahead.READ_AHEAD_BYTES
        assert relayed.relay.bytes_down <= 1000 + read_ahead.READ_AHEAD_BYTES + SCRATCH_BYTES
        assert len(relayed.tunnel.inbox) == SCRATCH_BYTES
        relayed.kill()
        writer.kill()

    def test_client_that_reads_again_gets_the_rest(self) -> None:
        relayed = RunningRelay(client_capacity=1000).start()
        body = b"".join(pseudo_random(3, 2 * MIB))
        gevent.Greenlet.spawn(relayed.gateway.write, body)
        settle()
        assert relayed.application.read(len(body)) == body
        relayed.kill()

    def test_bytes_from_before_the_gateway_ended_all_arrive(self) -> None:
        relayed = RunningRelay(client_capacity=1000, tunnel_capacity=MIB).start()
        body = b"".join(pseudo_random(4, 900_000))
        relayed.gateway.write(body)
        relayed.gateway.send_eof()
        settle()
        assert not relayed.has_ended
        assert relayed.application.read(len(body)) == body
        assert relayed.end() == GATEWAY_FINISHED

    def test_bytes_from_before_the_tunnel_was_lost_all_arrive(self) -> None:
        relayed = RunningRelay(client_capacity=1000, tunnel_capacity=MIB).start()
        body = b"".join(pseudo_random(5, 200_000))
        relayed.gateway.write(body)
        relayed.tunnel.lose("closed without close_notify")
        settle()
        assert relayed.application.read(len(body)) == body
        assert relayed.end() == GATEWAY_LOST

    def test_client_that_accepts_no_last_bytes_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(read_ahead, "LAST_BYTES_TIMEOUT_S", 0.01)
        relayed = RunningRelay(client_capacity=10).start()
        relayed.gateway.write(bytes(1000))
        relayed.gateway.send_eof()
        assert relayed.end() == CLIENT_LOST

    def test_client_that_keeps_accepting_a_little_is_not_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(read_ahead, "LAST_BYTES_TIMEOUT_S", 0.2)
        relayed = RunningRelay(client_capacity=10).start()
        relayed.gateway.write(bytes(100))
        relayed.gateway.send_eof()
        for _ in range(9):
            gevent.sleep(0.05)
            assert len(relayed.application.read(10)) == 10
        assert len(relayed.application.read(10)) == 10
        assert relayed.end() == GATEWAY_FINISHED

    def test_many_small_pieces_use_no_more_memory_than_their_bytes(self) -> None:
        client, _ = stream_pair(0)
        ahead = read_ahead.ReadAhead(client, lambda run: None, lambda: None)
        for _ in range(10_000):
            ahead.put(memoryview(b"x"))
        assert ahead._kept.__sizeof__() < 2 * 10_000 + 100

    def test_client_can_send_while_it_does_not_read(self) -> None:
        relayed = RunningRelay(client_capacity=1000).start()
        writer = gevent.Greenlet.spawn(relayed.gateway.write, bytes(MIB))
        settle()
        relayed.application.write(b"stop")
        assert relayed.gateway.read(4) == b"stop"
        relayed.kill()
        writer.kill()


class TestSlowGateway:
    def test_client_waits_for_a_slow_gateway(self) -> None:
        relayed = RunningRelay(client_capacity=SCRATCH_BYTES, tunnel_capacity=1000)
        relayed.gateway.capacity = 1000
        relayed.start()
        writer = gevent.Greenlet.spawn(relayed.application.write, bytes(MIB))
        settle()
        assert not writer.ready()
        assert relayed.relay.bytes_up <= SCRATCH_BYTES
        relayed.kill()
        writer.kill()


class TestFairness:
    """The clock is the event loop: bytes copied within one iteration, however long an iteration takes."""

    @staticmethod
    def _most_in_one_iteration(relayed: RunningRelay, copied: Callable[[], int]) -> int:
        seen = [0]
        each_iteration = gevent.get_hub().loop.check()
        each_iteration.start(lambda: seen.append(copied()))
        relayed.start()
        relayed.end(60)
        each_iteration.stop()
        each_iteration.close()
        seen.append(copied())
        return max(after - before for before, after in pairwise(seen))

    def test_download_without_a_pause_yields_after_each_slice(self) -> None:
        relayed = RunningRelay(client_capacity=ENDLESS, tunnel_capacity=ENDLESS)
        relayed.gateway.write(bytes(40 * MIB))
        relayed.gateway.send_eof()
        most = self._most_in_one_iteration(relayed, lambda: relayed.relay.bytes_down)
        assert relayed.relay.bytes_down == 40 * MIB
        assert most <= 2 * TURN_BYTES

    def test_upload_without_a_pause_yields_after_each_slice(self) -> None:
        relayed = RunningRelay(client_capacity=ENDLESS, tunnel_capacity=ENDLESS, half_close="close")
        relayed.application.write(bytes(40 * MIB))
        relayed.application.send_eof()
        most = self._most_in_one_iteration(relayed, lambda: relayed.relay.bytes_up)
        assert relayed.relay.bytes_up == 40 * MIB
        assert most <= 2 * TURN_BYTES


class TestLostClient:
    def test_reset_by_the_client_aborts_the_session(self, relayed: RunningRelay) -> None:
        relayed.start()
        settle()
        relayed.client.lose()
        assert relayed.end() == CLIENT_ABORTED

    def test_bytes_sent_before_the_loss_all_reach_the_gateway(self) -> None:
        relayed = RunningRelay(client_capacity=ENDLESS)
        relayed.gateway.capacity = 1000
        body = b"".join(pseudo_random(6, 500_000))
        relayed.start()
        relayed.application.write(body)
        relayed.application.send_eof()
        settle()
        relayed.client.refuses = True
        relayed.gateway.write(b"an unread answer")
        assert relayed.gateway.read(len(body)) == body
        assert relayed.end() == CLIENT_ABORTED

    def test_tunnel_is_still_read_after_the_loss(self) -> None:
        """A destination that answers while it reads would stop reading if its answer stayed unread."""
        relayed = RunningRelay(client_capacity=ENDLESS, tunnel_capacity=1000)
        relayed.gateway.capacity = 1000
        relayed.start()
        relayed.application.write(bytes(100_000))
        relayed.client.refuses = True
        echoed = gevent.Greenlet.spawn(lambda: [relayed.gateway.write(relayed.gateway.read(1000)) for _ in range(100)])
        echoed.join(10)
        assert echoed.successful()
        assert relayed.end() == CLIENT_ABORTED

    def test_bytes_kept_for_a_slow_client_are_freed_after_its_loss(self) -> None:
        relayed = RunningRelay(client_capacity=1000, tunnel_capacity=MIB).start()
        relayed.gateway.write(bytes(MIB))
        settle()
        relayed.client.lose()
        assert relayed.end() == CLIENT_ABORTED

    def test_loss_ends_the_session_although_the_source_is_silent(self, relayed: RunningRelay) -> None:
        """As standard output without a reader does, while standard input is a terminal."""
        relayed.start()
        settle()
        relayed.client.refuses = True
        relayed.gateway.write(b"x")
        assert relayed.end() == CLIENT_ABORTED

    def test_loss_after_the_upward_direction_broke_ends_the_session(self, relayed: RunningRelay) -> None:
        relayed.tunnel.refuses = True
        relayed.start()
        settle()
        relayed.application.write(b"x")
        settle()
        relayed.tunnel.loss = None  # the downward direction still works
        assert not relayed.has_ended
        relayed.client.lose()
        relayed.gateway.write(b"more")
        assert relayed.end() == CLIENT_ABORTED


class TestGatewayEnd:
    def test_orderly_end_finishes_the_session(self, relayed: RunningRelay) -> None:
        relayed.start()
        relayed.gateway.write(b"bye")
        relayed.gateway.send_eof()
        assert relayed.end() == GATEWAY_FINISHED
        assert relayed.application.read(3) == b"bye"

    def test_any_other_end_loses_the_session(self, relayed: RunningRelay) -> None:
        relayed.start()
        settle()
        relayed.tunnel.lose()
        assert relayed.end() == GATEWAY_LOST
        assert not relayed.end().is_clean

    @pytest.mark.parametrize(
        ("loss", "reason"),
        [
            (StreamReset("reset by the gateway: CONNECT_ERROR", Code.CONNECT_ERROR), "aborted"),
            (StreamReset("reset by the gateway: CANCEL", Code.CANCEL), "lost"),
            (StreamLost("connection reset by peer"), "lost"),
        ],
    )
    def test_reset_by_the_destination_is_distinguished_from_a_lost_tunnel(self, loss: StreamLost, reason: str) -> None:
        relayed = RunningRelay().start()
        relayed.tunnel.loss = loss
        relayed.tunnel.note()
        end = relayed.end()
        assert (end.side, end.reason, end.is_clean, end.cause) == (GATEWAY_LOST.side, reason, False, str(loss))

    def test_broken_upward_direction_does_not_lose_the_answer(self, relayed: RunningRelay) -> None:
        relayed.start()
        settle()
        relayed.tunnel.refuses = True
        relayed.application.write(b"too late")
        settle()
        relayed.tunnel.loss = None
        relayed.gateway.write(b"the answer")
        relayed.gateway.send_eof()
        assert relayed.end() == GATEWAY_FINISHED
        assert relayed.application.read(10) == b"the answer"

    def test_both_streams_stay_open_for_their_owner(self, relayed: RunningRelay) -> None:
        relayed.start()
        relayed.gateway.send_eof()
        relayed.end()
        assert not relayed.client.is_closed
        assert not relayed.tunnel.is_closed


class TestStop:
    def test_silent_session_ends_with_the_reason(self, relayed: RunningRelay) -> None:
        relayed.start()
        settle()
        relayed.relay.stop(IDLE)
        assert relayed.end() == IDLE

    def test_first_reason_counts(self, relayed: RunningRelay) -> None:
        relayed.start()
        settle()
        relayed.relay.stop(IDLE)
        relayed.relay.stop(DRAINED)
        assert relayed.end() == IDLE

    def test_relay_stopped_before_it_runs_copies_nothing(self, relayed: RunningRelay) -> None:
        relayed.relay.stop(DRAINED)
        relayed.start(early=b"hello")
        assert relayed.end() == DRAINED
        assert relayed.application.inbox == b""

    def test_relay_can_be_stopped_while_early_bytes_wait(self) -> None:
        relayed = RunningRelay(client_capacity=0).start(early=bytes(16_384))
        settle()
        relayed.relay.stop(DRAINED)
        assert relayed.end() == DRAINED

    def test_relay_can_be_stopped_while_it_delivers_the_last_bytes(self) -> None:
        relayed = RunningRelay(client_capacity=10).start()
        relayed.gateway.write(bytes(100))
        relayed.gateway.send_eof()
        settle()
        relayed.relay.stop(DRAINED)
        assert relayed.end() == DRAINED

    def test_relay_can_be_stopped_while_it_lingers_after_the_client_ended(self, relayed: RunningRelay) -> None:
        relayed.start()
        relayed.application.send_eof()
        settle()
        relayed.relay.stop(DRAINED)
        assert relayed.end() == DRAINED

    @pytest.mark.parametrize(
        "moments", list(permutations(["stop", "client lost", "gateway ends", "gateway sends", "stop again"], 3))
    )
    @pytest.mark.parametrize("rounds", [0, 1, 2])
    def test_interrupt_never_hits_the_caller_whatever_happens_at_the_same_time(
        self, relayed: RunningRelay, moments: tuple[str, ...], rounds: int
    ) -> None:
        events = {
            "stop": lambda: relayed.relay.stop(IDLE),
            "stop again": lambda: relayed.relay.stop(DRAINED),
            "client lost": relayed.client.lose,
            "gateway ends": relayed.gateway.send_eof,
            "gateway sends": lambda: relayed.gateway.send(b"x"),
        }
        relayed.start()
        settle()
        for moment in moments:
            events[moment]()
            for _ in range(rounds):
                gevent.sleep(0)
        assert relayed.end() in (IDLE, DRAINED, CLIENT_ABORTED, GATEWAY_FINISHED)
        assert relayed.after == ["went on"]

    @pytest.mark.parametrize("rounds", range(8))
    def test_stop_at_any_moment_of_a_short_session_never_hits_the_caller(self, rounds: int) -> None:
        relayed = RunningRelay(client_capacity=10)
        relayed.gateway.write(bytes(15))
        relayed.gateway.send_eof()
        relayed.application.send_eof()
        relayed.start(early=b"early")
        for _ in range(rounds):
            gevent.sleep(0)
        relayed.relay.stop(DRAINED)
        gevent.Greenlet.spawn(relayed.application.read, 20)
        assert relayed.end() in (DRAINED, GATEWAY_FINISHED, CLIENT_FINISHED)
        assert relayed.after == ["went on"]


class TestBug:
    def test_crash_of_the_downward_direction_ends_the_session(self, relayed: RunningRelay) -> None:
        def broken(buffer: memoryview) -> int:
            raise ZeroDivisionError

        relayed.tunnel.recv_into = broken  # type: ignore[method-assign]
        with caught_crashes() as crashes:
            relayed.start()
            assert relayed.end() == CRASHED
        assert [type(crash) for crash in crashes] == [ZeroDivisionError]

    def test_crash_of_the_upward_direction_reaches_the_caller_and_ends_the_other(self) -> None:
        relayed = RunningRelay()

        def broken(buffer: memoryview) -> int:
            raise ZeroDivisionError

        relayed.client.recv_into = broken  # type: ignore[method-assign]
        with pytest.raises(ZeroDivisionError):
            relayed.relay.run(b"")
        assert not relayed.relay._tasks


def test_killed_caller_leaves_no_greenlet_behind(relayed: RunningRelay) -> None:
    relayed.start()
    settle()
    relayed.kill()
    assert not relayed.relay._tasks


def test_idle_session_holds_no_bytes(relayed: RunningRelay) -> None:
    relayed.start()
    relayed.gateway.write(bytes(60_000))
    relayed.application.read(60_000)
    settle()
    assert relayed.relay._read_ahead._kept.__sizeof__() < 100
    assert wait_until(lambda: relayed.relay.bytes_down == 60_000)


def test_fake_stream_behaves_like_a_stream() -> None:
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
