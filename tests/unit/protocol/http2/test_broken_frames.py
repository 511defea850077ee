"""Whatever a gateway sends ends as a clear error with the right code, in bounded memory: no hang and no crash."""

from __future__ import annotations

import struct

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from pomagent.errors import StreamBroken, StreamReset
from pomagent.protocol.http2 import frames
from pomagent.protocol.http2.connection import (
    MAX_FRUITLESS,
    MAX_PROVISIONAL,
    Connection,
)
from pomagent.protocol.http2.control import MAX_OUTGOING_BYTES
from pomagent.protocol.http2.flow import MAX_WINDOW
from pomagent.protocol.http2.frames import FRAME_BYTES, HEAD, Code, Flag, Kind, Setting, frame
from pomagent.protocol.http2.headers import MAX_BLOCK_BYTES, MAX_CONTINUATIONS
from tests.fakes.http2_peer import ACCEPTED, GREETING, accepted, feed, opened

END = Flag.END_STREAM
WHOLE = Flag.END_HEADERS
LONG = struct.Struct(">I")
SEVEN = bytes(7)
DATA = frame(Kind.DATA, 0, 1, b"payload")


def block(*headers: tuple[str, str]) -> bytes:
    return bytes(Encoder().encode(headers))


def head(*headers: tuple[str, str], flags: int = WHOLE) -> bytes:
    return frame(Kind.HEADERS, flags, 1, block(*headers))


INTO_A_TUNNEL = {
    "data_on_no_stream": (frame(Kind.DATA, 0, 0, b"x"), "PROTOCOL_ERROR"),
    "data_on_another_stream": (frame(Kind.DATA, 0, 3, b"x"), "PROTOCOL_ERROR"),
    "data_after_the_end": (frame(Kind.DATA, END, 1, b"x") + DATA, "STREAM_CLOSED"),
    "data_beyond_a_frame": (HEAD.pack((FRAME_BYTES + 1) << 8, 0, 1), "FRAME_SIZE_ERROR"),
    "padding_without_its_length": (frame(Kind.DATA, Flag.PADDED, 1), "PROTOCOL_ERROR"),
    "padding_beyond_the_frame": (frame(Kind.DATA, Flag.PADDED, 1, b"\x05abc"), "PROTOCOL_ERROR"),
    "padding_as_long_as_the_frame": (frame(Kind.DATA, Flag.PADDED, 1, b"\x04abc"), "PROTOCOL_ERROR"),
    "a_head_in_the_middle": (head(("x-late", "1")), "PROTOCOL_ERROR"),
    "a_head_after_the_end": (frame(Kind.DATA, END, 1) + head(("x-late", "1")), "STREAM_CLOSED"),
    "a_continuation_of_nothing": (frame(Kind.CONTINUATION, WHOLE, 1), "PROTOCOL_ERROR"),
    "a_push": (frame(Kind.PUSH_PROMISE, WHOLE, 1, LONG.pack(2)), "PROTOCOL_ERROR"),
    "settings_on_a_stream": (frame(Kind.SETTINGS, 0, 1), "PROTOCOL_ERROR"),
    "settings_of_odd_length": (frame(Kind.SETTINGS, 0, 0, SEVEN), "FRAME_SIZE_ERROR"),
    "settings_that_acknowledge_and_set": (frame(Kind.SETTINGS, Flag.ACK, 0, bytes(6)), "FRAME_SIZE_ERROR"),
    "settings_beyond_a_frame": (HEAD.pack((FRAME_BYTES + 6) << 8 | Kind.SETTINGS, 0, 0), "FRAME_SIZE_ERROR"),
    "a_window_setting_too_large": (frames.settings({Setting.INITIAL_WINDOW_SIZE: 2**31}), "FLOW_CONTROL_ERROR"),
    "a_frame_setting_too_small": (frames.settings({Setting.MAX_FRAME_SIZE: FRAME_BYTES - 1}), "PROTOCOL_ERROR"),
    "a_frame_setting_too_large": (frames.settings({Setting.MAX_FRAME_SIZE: 2**24}), "PROTOCOL_ERROR"),
    "a_server_that_takes_pushes": (frames.settings({Setting.ENABLE_PUSH: 1}), "PROTOCOL_ERROR"),
    "a_ping_on_a_stream": (frame(Kind.PING, 0, 1, bytes(8)), "PROTOCOL_ERROR"),
    "a_ping_too_short": (frame(Kind.PING, 0, 0, SEVEN), "FRAME_SIZE_ERROR"),
    "a_ping_too_long": (frame(Kind.PING, 0, 0, bytes(9)), "FRAME_SIZE_ERROR"),
    "a_window_update_of_nothing": (frames.window_update(1, 0), "PROTOCOL_ERROR"),
    "a_window_update_of_the_connection_of_nothing": (frames.window_update(0, 0), "PROTOCOL_ERROR"),
    "a_window_beyond_its_maximum": (frames.window_update(1, MAX_WINDOW), "FLOW_CONTROL_ERROR"),
    "a_connection_window_beyond_its_maximum": (frames.window_update(0, MAX_WINDOW), "FLOW_CONTROL_ERROR"),
    "a_window_update_too_short": (frame(Kind.WINDOW_UPDATE, 0, 1, bytes(3)), "FRAME_SIZE_ERROR"),
    "a_window_update_of_another_stream": (frames.window_update(3, 1), "PROTOCOL_ERROR"),
    "a_reset_of_no_stream": (frame(Kind.RST_STREAM, 0, 0, LONG.pack(8)), "PROTOCOL_ERROR"),
    "a_reset_of_another_stream": (frame(Kind.RST_STREAM, 0, 3, LONG.pack(8)), "PROTOCOL_ERROR"),
    "a_reset_too_short": (frame(Kind.RST_STREAM, 0, 1, bytes(3)), "FRAME_SIZE_ERROR"),
    "a_goaway_on_a_stream": (frame(Kind.GOAWAY, 0, 1, bytes(8)), "PROTOCOL_ERROR"),
    "a_goaway_too_short": (frame(Kind.GOAWAY, 0, 0, SEVEN), "FRAME_SIZE_ERROR"),
    "a_priority_of_no_stream": (frame(Kind.PRIORITY, 0, 0, bytes(5)), "PROTOCOL_ERROR"),
    "a_priority_too_short": (frame(Kind.PRIORITY, 0, 1, bytes(4)), "FRAME_SIZE_ERROR"),
    "an_unknown_frame_too_long": (HEAD.pack((FRAME_BYTES + 1) << 8 | 0x77, 0, 0), "FRAME_SIZE_ERROR"),
}

FOR_AN_ANSWER = {
    "http1": (b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3, "PROTOCOL_ERROR"),
    "no_settings_first": (frame(Kind.PING, 0, 0, bytes(8)), "PROTOCOL_ERROR"),
    "an_acknowledgement_first": (frame(Kind.SETTINGS, Flag.ACK, 0), "PROTOCOL_ERROR"),
    "data_before_the_head": (GREETING + DATA, "PROTOCOL_ERROR"),
    "data_amid_the_head": (GREETING + head((":status", "200"), flags=0) + DATA, "PROTOCOL_ERROR"),
    "a_ping_amid_the_head": (
        GREETING + head((":status", "200"), flags=0) + frame(Kind.PING, 0, 0, bytes(8)), "PROTOCOL_ERROR",
    ),
    "an_unknown_frame_amid_the_head": (
        GREETING + head((":status", "200"), flags=0) + frame(Kind.CONTINUATION, 0, 1).replace(b"\x09", b"\x77"),
        "PROTOCOL_ERROR",
    ),
    "another_streams_continuation": (
        GREETING + head((":status", "200"), flags=0) + frame(Kind.CONTINUATION, WHOLE, 3), "PROTOCOL_ERROR",
    ),
    "a_head_on_another_stream": (GREETING + frame(Kind.HEADERS, WHOLE, 3, b"\x88"), "PROTOCOL_ERROR"),
    "a_head_without_a_status": (GREETING + head(("x-request-id", "1")), "PROTOCOL_ERROR"),
    "an_empty_head": (GREETING + frame(Kind.HEADERS, WHOLE, 1), "PROTOCOL_ERROR"),
    "a_status_after_another_header": (GREETING + head(("x", "1"), (":status", "200")), "PROTOCOL_ERROR"),
    "two_statuses": (GREETING + head((":status", "200"), (":status", "200")), "PROTOCOL_ERROR"),
    "a_status_of_two_digits": (GREETING + head((":status", "20")), "PROTOCOL_ERROR"),
    "a_status_in_words": (GREETING + head((":status", "two")), "PROTOCOL_ERROR"),
    "a_status_of_600": (GREETING + head((":status", "600")), "PROTOCOL_ERROR"),
    "a_requests_header": (GREETING + head((":status", "200"), (":path", "/")), "PROTOCOL_ERROR"),
    "a_name_in_capitals": (GREETING + head((":status", "200"), ("X-Request-Id", "1")), "PROTOCOL_ERROR"),
    "a_header_of_http1": (GREETING + head((":status", "200"), ("transfer-encoding", "chunked")), "PROTOCOL_ERROR"),
    "a_provisional_answer_at_the_end": (GREETING + head((":status", "103"), flags=WHOLE | END), "PROTOCOL_ERROR"),
    "two_answers": (GREETING + head((":status", "403")) + head((":status", "403")), "PROTOCOL_ERROR"),
    "trailers_before_the_end": (GREETING + head((":status", "403")) + head(("x-late", "1")), "PROTOCOL_ERROR"),
    "an_index_beyond_the_table": (GREETING + frame(Kind.HEADERS, WHOLE, 1, b"\xff\xff\x03"), "COMPRESSION_ERROR"),
    "a_block_that_breaks_off": (GREETING + frame(Kind.HEADERS, WHOLE, 1, b"\x40\x05ab"), "COMPRESSION_ERROR"),
    "an_endless_number": (GREETING + frame(Kind.HEADERS, WHOLE, 1, b"\x7f" + b"\xff" * 500), "COMPRESSION_ERROR"),
    "padding_beyond_the_head": (GREETING + frame(Kind.HEADERS, WHOLE | Flag.PADDED, 1, b"\x09\x88"), "PROTOCOL_ERROR"),
    "a_head_shorter_than_its_priority": (
        GREETING + frame(Kind.HEADERS, WHOLE | Flag.PRIORITY, 1, b"\x88"), "FRAME_SIZE_ERROR",
    ),
}  # fmt: skip


@pytest.mark.parametrize("piece", [65536, 1])
@pytest.mark.parametrize("name", INTO_A_TUNNEL)
def test_frame_that_a_tunnel_cannot_have_is_a_violation(name: str, piece: int) -> None:
    data, code = INTO_A_TUNNEL[name]
    connection = accepted()
    feed(connection, data, piece)
    assert goaway_code(connection) == code


@pytest.mark.parametrize("piece", [65536, 1])
@pytest.mark.parametrize("name", FOR_AN_ANSWER)
def test_malformed_answer_is_a_violation(name: str, piece: int) -> None:
    data, code = FOR_AN_ANSWER[name]
    connection = opened()
    feed(connection, data, piece)
    assert goaway_code(connection) == code


def test_stream_before_the_connect_is_a_violation() -> None:
    connection = Connection()
    connection.outgoing.clear()
    feed(connection, GREETING + ACCEPTED)
    assert goaway_code(connection) == "PROTOCOL_ERROR"


def test_bytes_before_a_violation_belong_to_the_tunnel() -> None:
    assert feed(connection := accepted(), DATA + frame(Kind.PING, 0, 0) + DATA) == b"payload"
    assert goaway_code(connection) == "FRAME_SIZE_ERROR"


def test_violation_after_the_end_keeps_the_end_orderly() -> None:
    connection = accepted()
    feed(connection, frame(Kind.DATA, END, 1, b"x") + frame(Kind.PING, 0, 0))
    assert connection.has_ended


def test_frames_after_a_violation_are_ignored() -> None:
    connection = accepted()
    feed(connection, frame(Kind.PING, 0, 0))
    said = bytes(connection.outgoing)
    assert feed(connection, DATA * 10) == b""
    assert connection.outgoing == said


@pytest.mark.parametrize(
    "harmless",
    [
        frame(Kind.PRIORITY, 0, 1, bytes(5)),
        frame(Kind.PRIORITY, 0, 7, bytes(5)),
        HEAD.pack(300 << 8 | 0x77, 0xFF, 99) + bytes(300),
        frames.settings({Setting.MAX_CONCURRENT_STREAMS: 0, Setting.HEADER_TABLE_SIZE: 2**32 - 1}),
        frame(Kind.SETTINGS, 0, 0, b"\x99\x99" + bytes(4)),
        frame(Kind.SETTINGS, Flag.ACK, 0),
        frame(Kind.PING, Flag.ACK, 0, bytes(8)),
        frame(Kind.DATA, Flag.PADDED, 1, b"\x00"),
        frame(Kind.DATA, Flag.PADDED, 1, b"\x03" + bytes(3)),
    ],
    ids=range(9),
)
def test_harmless_frames_are_skipped(harmless: bytes) -> None:
    connection = accepted()
    assert feed(connection, DATA + harmless + DATA) == b"payload" * 2
    assert connection.loss is None


class TestLimits:
    """Each under, at and over."""

    def test_the_receive_window(self) -> None:
        connection = accepted()
        connection._receiving._window = FRAME_BYTES
        whole = frame(Kind.DATA, 0, 1, bytes(FRAME_BYTES))
        assert len(feed(connection, whole)) == FRAME_BYTES
        assert connection.loss is None
        assert feed(connection, DATA) == b""
        assert goaway_code(connection) == "FLOW_CONTROL_ERROR"

    def test_padding_counts_for_the_window(self) -> None:
        connection = accepted()
        connection._receiving._window = 5
        feed(connection, frame(Kind.DATA, Flag.PADDED, 1, b"\x05" + bytes(5)))
        assert goaway_code(connection) == "FLOW_CONTROL_ERROR"

    def test_the_bytes_of_a_head(self) -> None:
        at, over = (b"\x20" * (size - 1) + b"\x88" for size in (MAX_BLOCK_BYTES, MAX_BLOCK_BYTES + 1))
        feed(connection := opened(), GREETING + _in_frames(at))
        assert connection.is_tunnel
        feed(connection := opened(), GREETING + _in_frames(over))
        assert goaway_code(connection) == "ENHANCE_YOUR_CALM"

    def test_a_head_that_unpacks_to_more_than_it_was(self) -> None:
        encoder = Encoder()
        bomb = encoder.encode([(":status", "200"), ("x", "y" * 4000)]) + b"\xbe" * 30
        feed(connection := opened(), GREETING + frame(Kind.HEADERS, WHOLE, 1, bytes(bomb)))
        assert goaway_code(connection) == "ENHANCE_YOUR_CALM"

    @pytest.mark.parametrize(("count", "ends"), [(MAX_CONTINUATIONS, True), (MAX_CONTINUATIONS + 1, False)])
    def test_the_frames_of_a_head(self, count: int, ends: bool) -> None:
        empty = [frame(Kind.CONTINUATION, WHOLE if number == count - 1 else 0, 1) for number in range(count)]
        feed(connection := opened(), GREETING + frame(Kind.HEADERS, 0, 1, b"\x88") + b"".join(empty))
        assert connection.is_tunnel is ends
        assert ends or goaway_code(connection) == "ENHANCE_YOUR_CALM"

    def test_provisional_answers(self) -> None:
        feed(connection := opened(), GREETING + head((":status", "103")) * MAX_PROVISIONAL + ACCEPTED)
        assert connection.is_tunnel
        feed(connection := opened(), GREETING + head((":status", "103")) * (MAX_PROVISIONAL + 1))
        assert goaway_code(connection) == "ENHANCE_YOUR_CALM"

    @pytest.mark.parametrize(
        "empty",
        [
            frame(Kind.DATA, 0, 1), frame(Kind.DATA, Flag.PADDED, 1, b"\x02" + bytes(2)),
            frame(Kind.PRIORITY, 0, 1, bytes(5)), frame(Kind.SETTINGS, Flag.ACK, 0), HEAD.pack(0x77, 0, 0),
        ],
        ids=["data", "padding", "priority", "settings", "unknown"],
    )  # fmt: skip
    def test_frames_that_bring_nothing(self, empty: bytes) -> None:
        feed(connection := accepted(), empty * (MAX_FRUITLESS - 2))
        assert connection.loss is None
        assert feed(connection, DATA) == b"payload"  # and they count anew
        feed(connection, empty * MAX_FRUITLESS)
        assert connection.loss is None
        feed(connection, empty)
        assert goaway_code(connection) == "ENHANCE_YOUR_CALM"

    def test_frames_that_bring_nothing_in_the_course_of_time(self) -> None:
        connection = accepted()
        for _ in range(3):
            feed(connection, frame(Kind.PING, Flag.ACK, 0, bytes(8)) * (MAX_FRUITLESS - 2))
            connection.caught_up()
        assert connection.loss is None

    @pytest.mark.parametrize("asks", [frame(Kind.PING, 0, 0, bytes(8)), frame(Kind.SETTINGS, 0, 0)])
    def test_answers_that_the_gateway_does_not_read(self, asks: bytes) -> None:
        connection = accepted()
        for _ in range(MAX_OUTGOING_BYTES // 9 + 1):
            feed(connection, asks + DATA)
        assert goaway_code(connection) == "ENHANCE_YOUR_CALM"
        assert len(connection.outgoing) < MAX_OUTGOING_BYTES + 300


class TestAnyBytes:
    """A fuzzer's. What is read is never more than what was written, and nothing but these two errors comes of it."""

    @given(data=st.binary(max_size=4000), piece=st.integers(1, 500))
    def test_noise(self, data: bytes, piece: int) -> None:
        self._holds(opened(), data, piece)
        self._holds(accepted(), data, piece)

    @settings(max_examples=300)
    @given(
        parts=st.lists(
            st.tuples(
                st.integers(0, 11), st.integers(0, 255) | st.sampled_from([0, 1, 4, 5, 8]), st.sampled_from([0, 1, 3]),
                st.binary(max_size=40), st.integers(-2, 2),
            ),
            max_size=25,
        ),
        piece=st.integers(1, 500), is_accepted=st.booleans(),
    )  # fmt: skip
    def test_frames_of_any_kind_flags_and_length(
        self, parts: list[tuple[int, int, int, bytes, int]], piece: int, is_accepted: bool
    ) -> None:
        data = b"".join(
            HEAD.pack(max(0, len(payload) + lie) << 8 | kind, flags, stream) + payload
            for kind, flags, stream, payload, lie in parts
        )
        connection = accepted() if is_accepted else opened()
        self._holds(connection, data if is_accepted else GREETING + data, piece)

    @given(data=st.binary(max_size=300), flip=st.integers(0, 200), bit=st.integers(0, 7))
    def test_good_frames_with_one_wrong_bit(self, data: bytes, flip: int, bit: int) -> None:
        stream = bytearray(
            GREETING + ACCEPTED + frame(Kind.DATA, 0, 1, data) + frame(Kind.PING, 0, 0, bytes(8))
            + frame(Kind.DATA, END, 1, data)
        )  # fmt: skip
        stream[flip % len(stream)] ^= 1 << bit
        self._holds(opened(), bytes(stream), 64)

    @given(block=st.binary(max_size=200))
    def test_any_block_of_headers(self, block: bytes) -> None:
        self._holds(opened(), GREETING + frame(Kind.HEADERS, WHOLE, 1, block), 64)

    @staticmethod
    def _holds(connection: Connection, data: bytes, piece: int) -> None:
        payload = feed(connection, data, piece)
        assert len(payload) <= len(data)
        assert connection.loss is None or isinstance(connection.loss, StreamBroken | StreamReset)
        assert len(connection.outgoing) <= len(data) * 3 + 400
        assert connection.sending.room <= MAX_WINDOW
        connection.end()
        connection.leave()


def goaway_code(connection: Connection) -> str:
    """Return the code of the final GOAWAY, which the error shares."""
    assert isinstance(connection.loss, StreamBroken), connection.loss
    last, rest = None, bytes(connection.outgoing)
    while rest:
        word, _, _ = HEAD.unpack_from(rest)
        last, rest = rest[: 9 + (word >> 8)], rest[9 + (word >> 8) :]
    assert last is not None
    assert last[3] == Kind.GOAWAY
    assert last.endswith(str(connection.loss).removeprefix("the gateway breaks HTTP/2: ").encode())
    assert Code(LONG.unpack_from(last, 13)[0]).name == connection.loss.sent_code
    return connection.loss.sent_code


def _in_frames(block: bytes) -> bytes:
    parts = [block[at : at + FRAME_BYTES] for at in range(0, len(block), FRAME_BYTES)]
    return b"".join(
        frame(Kind.CONTINUATION if number else Kind.HEADERS, WHOLE if number == len(parts) - 1 else 0, 1, part)
        for number, part in enumerate(parts)
    )
