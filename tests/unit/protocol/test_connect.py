"""The bytes of a CONNECT and every shape that its answer may arrive in."""

from __future__ import annotations

import json
import traceback
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pomagent import __version__
from pomagent.protocol.connect import (
    MAX_BODY_BYTES,
    MAX_DETAIL_CHARACTERS,
    MAX_HEAD_BYTES,
    MAX_REQUEST_ID_CHARACTERS,
    Answer,
    ConnectRequest,
    Exchange,
    MalformedAnswer,
    accepted,
)
from pomagent.protocol.speaker import is_authorizers

ACCEPTED = (
    b"HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 07:35:03 GMT\r\nserver: envoy\r\n"
    b"x-request-id: 7167e249-7696-4204-9c5c-5c983db64c51\r\n\r\n"
)
BODY = b'{"error":"Unauthenticated","request_id":"1"}'
REFUSED = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(BODY), BODY)


def exchange() -> Exchange:
    return Exchange(ConnectRequest("redis.example.com:6379", {}))


def answer_to(*parts: bytes) -> Answer:
    """The answer that is complete with the last part and not before."""
    running = exchange()
    for part in parts[:-1]:
        assert running.receive(part) is None
    answer = running.receive(parts[-1])
    assert answer is not None
    return answer


def by_h11(data: bytes) -> Answer | MalformedAnswer | None:
    """h11's reading of an answer. A head in one piece is read without h11."""
    return outcome(data[:1], data[1:])


def outcome(*parts: bytes) -> Answer | MalformedAnswer | None:
    running = exchange()
    try:
        return next((answer for part in parts if (answer := running.receive(part)) is not None), None)
    except MalformedAnswer as malformed:
        return malformed


def explained(body: object, **headers: str) -> Answer:
    return Answer(503, headers, json.dumps(body).encode())


class TestRequest:
    def test_request_is_exactly_these_bytes(self):
        request = ConnectRequest("redis.example.com:6379", {"authorization": "Pomerium eyJ.a.b"}).text
        assert request == (
            b"CONNECT redis.example.com:6379 HTTP/1.1\r\n"
            b"Host: redis.example.com:6379\r\n"
            b"User-Agent: pomagent/" + __version__.encode() + b"\r\n"
            b"Accept: application/json\r\n"
            b"authorization: Pomerium eyJ.a.b\r\n"
            b"\r\n"
        )

    def test_request_without_a_credential_has_no_credential_header(self):
        assert b"uthorization" not in exchange().request

    def test_an_ipv6_destination_keeps_its_brackets(self):
        request = ConnectRequest("[2001:db8::5]:22", {}).text
        assert request.startswith(b"CONNECT [2001:db8::5]:22 HTTP/1.1\r\nHost: [2001:db8::5]:22\r\n")

    @pytest.mark.parametrize("value", ["Pomerium hunter2\r\nX: y", "Pomerium hunter2\x00", "Pomerium hunter2é"])
    def test_invalid_header_value_is_rejected_without_quoting_it(self, value):
        with pytest.raises(ValueError, match="cannot carry these headers: authorization") as refusal:
            ConnectRequest("redis.example.com:6379", {"authorization": value})
        assert "hunter2" not in "".join(traceback.format_exception(refusal.value))


class TestAccepted:
    def test_a_200_is_a_tunnel_with_its_request_id(self):
        answer = answer_to(ACCEPTED)
        assert answer.is_tunnel
        assert answer.status == 200
        assert answer.request_id == "7167e249-7696-4204-9c5c-5c983db64c51"
        assert (answer.early, answer.body) == (b"", b"")

    def test_bytes_after_the_200_are_kept(self):
        assert answer_to(ACCEPTED + b"SSH-2.0-OpenSSH_9.7\r\n").early == b"SSH-2.0-OpenSSH_9.7\r\n"

    def test_bytes_after_the_200_are_not_parsed_as_http(self):
        assert answer_to(ACCEPTED + ACCEPTED).early == ACCEPTED

    @pytest.mark.parametrize("position", range(1, len(ACCEPTED)))
    def test_answer_may_be_split_anywhere(self, position):
        answer = answer_to(ACCEPTED[:position], ACCEPTED[position:] + b"early")
        assert answer.is_tunnel
        assert answer.early == b"early"

    def test_answer_may_arrive_byte_by_byte(self):
        assert answer_to(*(bytes([byte]) for byte in ACCEPTED)).is_tunnel

    @pytest.mark.parametrize("status", [200, 201, 204, 299])
    def test_every_2xx_without_a_body_is_a_tunnel(self, status):
        assert answer_to(b"HTTP/1.1 %d Fine\r\n\r\n" % status).is_tunnel

    @pytest.mark.parametrize(
        "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"]
    )
    def test_interim_answers_are_skipped(self, interim):
        assert answer_to(interim + interim + ACCEPTED).is_tunnel
        assert answer_to(interim, interim, ACCEPTED).is_tunnel

    def test_content_length_0_is_a_tunnel(self):
        assert answer_to(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_tunnel

    @pytest.mark.parametrize(
        "header", [b"content-type: text/html", b"Content-Type: application/json", b"content-length: 5"]
    )
    def test_2xx_with_a_body_comes_from_a_balancer(self, header):
        answer = answer_to(b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\nhello")
        assert answer.looks_terminated
        assert not answer.is_tunnel

    def test_a_refusal_with_a_body_is_just_a_refusal(self):
        assert not answer_to(REFUSED).looks_terminated

    @pytest.mark.parametrize(
        "head",
        [
            b"HTTP/1.1 200\r\n\r\n",
            b"HTTP/1.1 200 \r\nx: \t a\xe9b \t\r\ny:\r\n\r\n",
            b"HTTP/1.1 299 \xff\x85\r\nx: a\x85b\r\nX: second\r\n\r\n",
        ],
    )
    def test_the_common_answer_needs_no_h11_and_is_read_as_h11_reads_it(self, head):
        assert accepted(head + b"early") == by_h11(head + b"early")

    @pytest.mark.parametrize(
        "data",
        [
            ACCEPTED[:-1],
            ACCEPTED.replace(b"200", b"403"),
            b"HTTP/1.0 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\n\n",
            b"HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nx: a\x00\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nname : space\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ],
    )
    def test_every_other_answer_is_left_to_h11(self, data):
        assert accepted(data) is None


class TestRefused:
    def test_refusal_is_complete_with_its_body(self):
        answer = answer_to(REFUSED[:-1], REFUSED[-1:])
        assert (answer.status, answer.body, answer.is_tunnel) == (401, BODY, False)

    @pytest.mark.parametrize("position", range(1, len(REFUSED)))
    def test_answer_may_be_split_anywhere(self, position):
        answer = answer_to(REFUSED[:position], REFUSED[position:])
        assert (answer.status, answer.body) == (401, BODY)

    def test_refusal_without_a_body_is_complete_with_its_head(self):
        assert answer_to(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").status == 503

    def test_a_chunked_body_is_put_together(self):
        head = b"HTTP/1.1 403 Forbidden\r\ntransfer-encoding: chunked\r\n\r\n"
        assert answer_to(head + b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\n\r\n").body == b"abcde"

    def test_a_body_without_a_length_lasts_until_the_end(self):
        assert answer_to(b"HTTP/1.1 404 Not Found\r\n\r\nno such", b" route", b"").body == b"no such route"

    def test_a_body_that_breaks_off_leaves_the_refusal(self):
        answer = answer_to(REFUSED[:-5], b"")
        assert (answer.status, answer.body) == (401, BODY[:-5])

    def test_a_body_that_is_nonsense_leaves_the_refusal(self):
        head = b"HTTP/1.1 403 Forbidden\r\ntransfer-encoding: chunked\r\n\r\n"
        assert answer_to(head, b"not a chunk\r\n").status == 403

    def test_incomplete_head_is_no_answer(self):
        running = exchange()
        running.receive(REFUSED[:40])
        assert running.answer_so_far is None
        running.receive(REFUSED[40:-5])
        assert running.answer_so_far == Answer(401, running.answer_so_far.headers, BODY[:-5])

    def test_bytes_after_a_refusal_are_not_payload(self):
        assert answer_to(REFUSED + b"more").early == b""

    def test_header_names_are_in_lower_case_and_the_first_of_each_counts(self):
        answer = answer_to(b"HTTP/1.1 429 Slow\r\nX-Request-ID: a\r\nx-request-id: b\r\ncontent-length: 0\r\n\r\n")
        assert answer.request_id == "a"
        assert set(answer.headers) == {"x-request-id", "content-length"}


def head_of(size: int) -> bytes:
    """The head of an accepted answer of exactly that many bytes."""
    frame = b"HTTP/1.1 200 OK\r\nx: %s\r\n\r\n"
    return frame % (b"y" * (size - len(frame) + 2))


class TestLimits:
    @pytest.mark.parametrize("size", [MAX_HEAD_BYTES - 1, MAX_HEAD_BYTES])
    def test_a_head_up_to_the_limit_is_taken(self, size):
        head = head_of(size)
        assert len(head) == size
        assert answer_to(head[:-1], head[-1:]).is_tunnel

    def test_a_head_over_the_limit_is_malformed(self):
        with pytest.raises(MalformedAnswer, match="too long"):
            exchange().receive(head_of(MAX_HEAD_BYTES + 2)[:-1])

    def test_a_head_that_never_ends_is_malformed(self):
        running = exchange()
        for _ in range(MAX_HEAD_BYTES // 1024):
            assert running.receive(b"x" * 1024) is None
        with pytest.raises(MalformedAnswer):
            running.receive(b"x")

    @pytest.mark.parametrize("size", [MAX_BODY_BYTES - 1, MAX_BODY_BYTES, MAX_BODY_BYTES + 1])
    def test_body_is_kept_up_to_the_limit(self, size):
        answer = answer_to(b"HTTP/1.1 403 Forbidden\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        assert len(answer.body) == min(size, MAX_BODY_BYTES)

    def test_answer_does_not_wait_for_the_rest_of_a_long_body(self):
        head = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 10000000\r\n\r\n"
        assert len(answer_to(head, b"x" * (MAX_BODY_BYTES - 1), b"xxx").body) == MAX_BODY_BYTES

    @pytest.mark.parametrize("size", [MAX_DETAIL_CHARACTERS - 1, MAX_DETAIL_CHARACTERS, MAX_DETAIL_CHARACTERS + 1])
    def test_explanation_is_cut_at_the_limit(self, size):
        assert len(explained({"error": "e" * size}).detail) == min(size, MAX_DETAIL_CHARACTERS)

    def test_fault_of_an_answer_is_cut_at_the_limit(self):
        with pytest.raises(MalformedAnswer) as malformed:
            exchange().receive(b"220 " + b"x" * 10_000 + b"\r\n\r\n")
        assert len(str(malformed.value)) <= MAX_DETAIL_CHARACTERS


class TestMalformed:
    @pytest.mark.parametrize(
        "data",
        [
            b"\x15\x03\x03\x00\x02\x02\x46\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.7\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 99 Low\r\n\r\n",
            b"HTTP/1.1 099 Low\r\n\r\n",
            b"HTTP/1.1 1000 High\r\n\r\n",
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nname : space\r\n\r\n",
            b"HTTP/1.1 401 No\r\ncontent-length: many\r\n\r\n",
            b"HTTP/1.1 401 No\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n",
        ],
    )
    def test_other_bytes_are_malformed(self, data):
        with pytest.raises(MalformedAnswer):
            exchange().receive(data)

    @pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\nserver:", b"HTTP/1.1 100 Continue\r\n\r\n"])
    def test_end_in_the_head_is_malformed(self, before):
        running = exchange()
        if before:
            assert running.receive(before) is None
        with pytest.raises(MalformedAnswer):
            running.receive(b"")

    def test_malformed_answer_stays_malformed(self):
        running = exchange()
        for data in (b"nonsense\r\n\r\n", ACCEPTED):
            with pytest.raises(MalformedAnswer):
                running.receive(data)


def feed(data: bytes, cuts: list[int]) -> None:
    """Nothing but MalformedAnswer may come of any bytes, and every property of an answer can be read."""
    running = exchange()
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    try:
        for start, end in pairwise(edges):
            answer = running.receive(data[start:end])
            if answer is not None:
                assert isinstance(answer.status, int)
                assert answer.detail.isprintable()
                assert answer.retry_after_s >= 0
                assert isinstance(is_authorizers(answer), bool)
                assert not (answer.is_tunnel and answer.looks_terminated)
                return
    except MalformedAnswer:
        pass


CUTS = st.lists(st.integers(0, 10_000), max_size=4)
HEAD = st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 503 x\r\n", b"HTTP/1.0 401 \r\n", b"HTTP/1.1 100 c\r\n\r\n"])
LINES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"content-length: 7", b"transfer-encoding: chunked", b"retry-after: 9", b"", b"a: b"]),
    ),
    max_size=6,
)


@given(data=st.binary(max_size=300), cuts=CUTS)
def test_random_bytes_are_an_answer_or_malformed(data, cuts):
    feed(data, cuts)


@settings(max_examples=60)
@given(head=HEAD, lines=LINES, body=st.binary(max_size=100), cuts=CUTS)
def test_nearly_good_answers_are_an_answer_or_malformed(head, lines, body, cuts):
    feed(head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body, cuts)


FIELDS = st.lists(
    st.one_of(
        st.from_regex(rb"[a-z]{1,2}:[ \t]{0,2}[^\r\n]{0,8}", fullmatch=True),
        st.sampled_from([b"content-length: 0", b"content-length: x", b"transfer-encoding: chunked", b"a: b\r\n c"]),
    ),
    max_size=3,
)


@settings(max_examples=200)
@given(
    first=st.from_regex(rb"HTTP/1\.[01] [2-4]0[0-9]( [^\n]{0,4})?", fullmatch=True),
    fields=FIELDS,
    line_end=st.sampled_from([b"\r\n", b"\r\n", b"\n"]),
    early=st.binary(max_size=9),
)
def test_an_answer_in_one_piece_is_read_exactly_as_h11_reads_it(first, fields, line_end, early):
    data = line_end.join([first, *fields, b"", early])
    assert repr(outcome(data)) == repr(by_h11(data))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["error", "statusText", "x"]), inner),
    max_leaves=6,
)


@settings(max_examples=50)
@given(body=st.one_of(st.binary(max_size=200), JSON.map(lambda value: json.dumps(value).encode())))
@example(b"[" * MAX_BODY_BYTES)
@example(b'{"error":' * 1500)
@example(b'{"error": ' + b"9" * 5000 + b"}")
def test_any_body_is_explained_in_printable_words_or_not_at_all(body):
    answer = Answer(503, {}, body)
    assert answer.detail.isprintable()
    assert len(answer.detail) <= MAX_DETAIL_CHARACTERS
    assert is_authorizers(answer) in (True, False)


class TestDetail:
    def test_pomerium_and_envoy_explain_in_json(self):
        assert explained({"error": "Forbidden", "request_id": "1"}).detail == "Forbidden"
        assert explained({"requestId": "1", "status": 503, "statusText": "no_healthy_upstream"}).detail == (
            "no_healthy_upstream"
        )

    @pytest.mark.parametrize("body", [b"<html><body>Forbidden</body></html>", b"Bad Request", b"", b"\xff\xfe"])
    def test_only_json_explains(self, body):
        assert Answer(403, {"content-type": "text/html"}, body).detail == ""

    @pytest.mark.parametrize(
        "body", [[], ["error"], "error", 5, None, {"other": "x"}, {"error": None}, {"error": ["x"]}]
    )
    def test_json_of_another_shape_explains_nothing(self, body):
        assert explained(body).detail == ""

    def test_control_characters_are_left_out(self):
        said = "\x1b[31mno\r\nGET / \x00\x9b\u202etoo\ud800"
        assert explained({"error": said}).detail == "[31mnoGET / too"


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("0", 0.0),
            ("120", 120.0),
            ("99999", 99999.0),
            ("100000", 0.0),
            ("-5", 0.0),
            ("1.5", 0.0),
            ("²", 0.0),
            ("", 0.0),
            ("Sun, 22 Nov 2026 07:35:03 GMT", 0.0),
            ("soon", 0.0),
        ],
    )
    def test_seconds_count_and_nothing_else(self, value, expected):
        assert Answer(429, {"retry-after": value}).retry_after_s == expected

    def test_missing_header_is_no_wait(self):
        assert Answer(429, {}).retry_after_s == 0.0


class TestOrigin:
    def test_authorizer_is_known_by_a_header_or_by_its_json(self):
        assert is_authorizers(Answer(403, {"x-pomerium-intercepted-response": "true"}, b"<html>"))
        assert is_authorizers(explained({"error": "Forbidden", "request_id": "r-1"}))

    def test_everything_else_is_the_proxys_own(self):
        assert not is_authorizers(Answer(403, {}))
        assert not is_authorizers(explained({"error": "Forbidden"}))
        assert not is_authorizers(explained({"status": 404, "statusText": "route_not_found"}))


@pytest.mark.parametrize("character", ["\x1b", "\x07", "\x9b", "\x00", "\n", "\u202e"])
def test_a_request_id_cannot_steer_a_terminal(character):
    answer = Answer(200, {"x-request-id": f"a{character}[31mb"})
    assert answer.request_id == "a[31mb"


@pytest.mark.parametrize("size", [MAX_REQUEST_ID_CHARACTERS + more for more in (-1, 0, 1)])
def test_a_request_id_has_a_limit(size):
    assert len(Answer(200, {"x-request-id": "a" * size}).request_id) == min(size, MAX_REQUEST_ID_CHARACTERS)
