"""Our side of HTTP/2 understands the ``h2`` library, and is understood by it, however the bytes are cut."""

from __future__ import annotations

import h2.events
import pytest
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st

from pomagent.protocol.http2.connection import Connection
from pomagent.protocol.http2.flow import DEFAULT_WINDOW, MAX_WINDOW
from pomagent.protocol.http2.frames import FRAME_BYTES, HEAD, STREAM, Code
from tests.fakes.http2_peer import DESTINATION, Peer


@pytest.fixture
def peer() -> Peer:
    return tunnel()


def tunnel() -> Peer:
    """Both sides of an accepted tunnel."""
    peer = Peer(Connection())
    peer.connection.open(DESTINATION, {"authorization": "Pomerium eyJ.a.b"})
    peer.exchange()
    peer.accept()
    return peer


def send(peer: Peer, data: bytes) -> int:
    """Send whole frames as ``http2_stream`` does, as far as the windows reach. Return the bytes sent."""
    sent = 0
    while size := peer.connection.sending.claim(len(data) - sent):
        peer.connection.outgoing += HEAD.pack(size << 8, 0, STREAM) + data[sent : sent + size]
        sent += size
    return sent


class TestTheRequest:
    def test_request_is_a_plain_connect(self, peer: Peer) -> None:
        (request,) = peer.seen(h2.events.RequestReceived)
        assert request.headers == [  # type: ignore[attr-defined]
            (b":method", b"CONNECT"), (b":authority", DESTINATION.encode()), (b"authorization", b"Pomerium eyJ.a.b"),
        ]  # fmt: skip

    def test_token_is_never_indexed(self, peer: Peer) -> None:
        (request,) = peer.seen(h2.events.RequestReceived)
        assert all(not header.indexable for header in request.headers)  # type: ignore[attr-defined]

    def test_a_token_beyond_one_frame_arrives_whole(self) -> None:
        peer = Peer(Connection())
        peer.connection.open(DESTINATION, {"authorization": "Pomerium " + "x.Y-" * 10_000})
        peer.exchange()
        (request,) = peer.seen(h2.events.RequestReceived)
        assert request.headers[2][1] == b"Pomerium " + b"x.Y-" * 10_000  # type: ignore[attr-defined]

    def test_windows_have_their_maximum_and_pushes_are_off(self, peer: Peer) -> None:
        settings = peer.h2.remote_settings
        assert settings[SettingCodes.INITIAL_WINDOW_SIZE] == MAX_WINDOW
        assert settings[SettingCodes.ENABLE_PUSH] == 0
        assert peer.h2.outbound_flow_control_window == MAX_WINDOW

    @pytest.mark.parametrize("header", ["x\r\ny", "ü", " padded ", "nul\0"])
    def test_invalid_header_is_an_error_without_its_value(self, header: str) -> None:
        with pytest.raises(ValueError, match="cannot carry") as caught:
            Connection().open(DESTINATION, {"authorization": header})
        assert header not in str(caught.value)


class TestTheAnswer:
    def test_an_accepted_tunnel_has_its_headers(self, peer: Peer) -> None:
        assert peer.connection.head is not None
        assert (peer.connection.head.status, peer.connection.head.headers) == (200, {"x-request-id": "h2-1"})
        assert peer.connection.is_tunnel

    def test_provisional_answers_are_skipped(self) -> None:
        peer = Peer(Connection())
        peer.connection.open(DESTINATION, {})
        peer.exchange()
        peer.accept([(":status", "103")])
        assert peer.connection.head is None
        peer.accept()
        assert peer.connection.is_tunnel

    def test_a_refusal_with_a_body_and_trailers_is_complete(self) -> None:
        peer = Peer(Connection())
        peer.connection.open(DESTINATION, {})
        peer.exchange()
        peer.accept([(":status", "403"), ("content-type", "application/json")])
        peer.h2.send_data(STREAM, b"{}")
        peer.h2.send_headers(STREAM, [("x-late", "1")], end_stream=True)
        peer.exchange()
        assert (peer.payload, peer.connection.has_ended) == (b"{}", True)
        assert peer.connection.head is not None
        assert peer.connection.head.headers == {"content-type": "application/json"}

    def test_a_head_of_many_frames_is_one_head(self) -> None:
        peer = Peer(Connection())
        peer.connection.open(DESTINATION, {})
        peer.exchange()
        peer.accept([(":status", "200"), ("x-long", "ab~" * 15_000)])
        assert peer.connection.head is not None
        assert len(peer.connection.head.headers["x-long"]) == 45_000

    def test_a_tunnel_that_ends_with_its_head_has_ended(self) -> None:
        peer = Peer(Connection())
        peer.connection.open(DESTINATION, {})
        peer.exchange()
        peer.accept(end=True)
        assert (peer.connection.is_tunnel, peer.connection.has_ended) == (True, True)


class TestTheTunnel:
    @given(
        data=st.binary(max_size=5000), cuts=st.lists(st.integers(1, 900), max_size=8), padding=st.integers(0, 255),
        piece=st.integers(1, 3000),
    )  # fmt: skip
    def test_received_bytes_do_not_depend_on_frames_and_reads(
        self, data: bytes, cuts: list[int], padding: int, piece: int
    ) -> None:
        peer, rest = tunnel(), data
        for number, cut in enumerate([*cuts, len(data)]):
            part, rest = rest[:cut], rest[cut:]
            peer.h2.send_data(STREAM, part, pad_length=padding if number % 2 else None)
        peer.h2.end_stream(STREAM)
        peer.exchange(piece)
        assert (bytes(peer.payload), peer.connection.has_ended) == (data, True)
        assert peer.connection.loss is None

    def test_sent_bytes_stay_within_the_window(self, peer: Peer) -> None:
        data = bytes(range(256)) * 1024
        assert send(peer, data) == DEFAULT_WINDOW
        peer.exchange()
        received = b"".join(event.data for event in peer.seen(h2.events.DataReceived))  # type: ignore[attr-defined]
        assert received == data[:DEFAULT_WINDOW]
        assert send(peer, data[DEFAULT_WINDOW:]) == 0

    def test_sending_resumes_when_the_window_opens(self, peer: Peer) -> None:
        data = bytes(range(256)) * 1024
        sent = send(peer, data)
        while sent < len(data):
            peer.exchange()
            peer.h2.acknowledge_received_data(30_000, STREAM)
            peer.exchange()
            more = send(peer, data[sent:])
            assert more
            sent += more
        peer.connection.end()
        peer.exchange()
        assert b"".join(event.data for event in peer.seen(h2.events.DataReceived)) == data  # type: ignore[attr-defined]
        assert peer.seen(h2.events.StreamEnded)

    def test_smaller_initial_window_applies_to_the_open_stream(self, peer: Peer) -> None:
        send(peer, bytes(60_000))
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 50_000})
        peer.exchange()
        assert peer.connection.sending.room == 0
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 60_010})
        peer.exchange()
        assert peer.connection.sending.room == 10

    def test_larger_frames_are_used_once_the_gateway_allows_them(self, peer: Peer) -> None:
        assert peer.connection.sending.claim(50_000) == FRAME_BYTES
        peer.h2.update_settings({SettingCodes.MAX_FRAME_SIZE: 20_000})
        peer.exchange()
        assert peer.connection.sending.claim(50_000) == 20_000

    def test_window_is_returned_after_bytes_were_consumed(self, peer: Peer) -> None:
        window = peer.h2.local_flow_control_window(STREAM)
        for _ in range(1100):
            peer.h2.send_data(STREAM, bytes(FRAME_BYTES))
            peer.exchange()
        peer.h2.receive_data(bytes(peer.connection.outgoing))
        assert peer.h2.local_flow_control_window(STREAM) > window - 17 * 1024 * 1024
        assert peer.h2.outbound_flow_control_window > window - 17 * 1024 * 1024
        assert any(isinstance(event, h2.events.WindowUpdated) and event.stream_id for event in peer.events)

    def test_client_end_leaves_the_gateways_side_open(self, peer: Peer) -> None:
        peer.connection.end()
        peer.connection.end()
        peer.exchange()
        assert len(peer.seen(h2.events.StreamEnded)) == 1
        peer.h2.send_data(STREAM, b"the answer", end_stream=True)
        peer.exchange()
        assert (peer.payload, peer.connection.has_ended) == (b"the answer", True)

    def test_a_reset_is_a_loss_with_its_code(self, peer: Peer) -> None:
        peer.h2.send_data(STREAM, b"before")
        peer.h2.reset_stream(STREAM, Code.CONNECT_ERROR)
        peer.exchange()
        assert peer.payload == b"before"
        assert str(peer.connection.loss) == "reset by the gateway: CONNECT_ERROR"
        assert not peer.connection.has_ended

    def test_a_reset_without_an_error_before_the_end_is_a_loss_all_the_same(self, peer: Peer) -> None:
        peer.h2.reset_stream(STREAM, Code.NO_ERROR)
        peer.exchange()
        assert str(peer.connection.loss) == "reset by the gateway: NO_ERROR"

    def test_a_reset_after_the_end_changes_nothing(self, peer: Peer) -> None:
        peer.h2.end_stream(STREAM)
        peer.h2.reset_stream(STREAM, Code.NO_ERROR)
        peer.exchange()
        assert (peer.connection.has_ended, peer.connection.loss) == (True, None)


class TestTheConnection:
    def test_pings_are_answered(self, peer: Peer) -> None:
        peer.h2.ping(b"12345678")
        peer.exchange()
        (answer,) = peer.seen(h2.events.PingAckReceived)
        assert answer.ping_data == b"12345678"  # type: ignore[attr-defined]

    def test_our_ping_is_open_until_it_is_answered(self, peer: Peer) -> None:
        peer.connection.ping()
        assert peer.connection.awaits_pong
        peer.exchange()
        assert not peer.connection.awaits_pong

    def test_settings_are_acknowledged(self, peer: Peer) -> None:
        assert peer.seen(h2.events.SettingsAcknowledged)

    def test_a_gateway_that_goes_away_in_order_lets_the_open_tunnel_go_on(self, peer: Peer) -> None:
        peer.connection.receive(*_arrived(peer.h2, lambda: peer.h2.close_connection(0, last_stream_id=STREAM)))
        assert (peer.connection.is_going_away, peer.connection.loss) == (True, None)

    def test_a_gateway_that_goes_away_with_an_error_is_a_loss_with_its_words(self, peer: Peer) -> None:
        away = Code.ENHANCE_YOUR_CALM
        peer.connection.receive(*_arrived(peer.h2, lambda: peer.h2.close_connection(away, b"too much")))
        assert str(peer.connection.loss) == "the gateway goes away: ENHANCE_YOUR_CALM (too much)"

    def test_a_gateway_that_goes_away_without_serving_the_tunnel_is_a_loss(self, peer: Peer) -> None:
        peer.connection.receive(*_arrived(peer.h2, lambda: peer.h2.close_connection(0, last_stream_id=0)))
        assert str(peer.connection.loss) == "the gateway goes away: NO_ERROR"

    def test_a_connect_to_a_gateway_that_goes_away_is_lost_at_once(self) -> None:
        peer = Peer(Connection())
        peer.connection.receive(*_arrived(peer.h2, lambda: peer.h2.close_connection(0)))
        peer.connection.open(DESTINATION, {})
        assert str(peer.connection.loss) == "the gateway goes away"

    def test_leaving_in_the_middle_resets_the_tunnel(self, peer: Peer) -> None:
        peer.connection.leave()
        peer.exchange()
        (reset,) = peer.seen(h2.events.StreamReset)
        assert reset.error_code == Code.CANCEL  # type: ignore[attr-defined]
        (away,) = peer.seen(h2.events.ConnectionTerminated)
        assert away.error_code == Code.NO_ERROR  # type: ignore[attr-defined]

    def test_leaving_after_both_ends_resets_nothing(self, peer: Peer) -> None:
        peer.connection.end()
        peer.h2.end_stream(STREAM)
        peer.exchange()
        peer.connection.leave()
        peer.exchange()
        assert not peer.seen(h2.events.StreamReset)

    def test_an_end_of_the_connection_in_the_middle_is_a_loss(self, peer: Peer) -> None:
        peer.connection.lost(None)
        assert str(peer.connection.loss) == "closed by the gateway in the middle of the tunnel"

    def test_an_end_of_the_connection_after_the_tunnels_is_none(self, peer: Peer) -> None:
        peer.h2.end_stream(STREAM)
        peer.exchange()
        peer.connection.lost(None)
        assert peer.connection.loss is None


def _arrived(h2_connection, act):  # type: ignore[no-untyped-def]
    """What an act of the peer's brings, in a buffer, with its length."""
    act()
    data = h2_connection.data_to_send()
    return memoryview(bytearray(data)), len(data)
