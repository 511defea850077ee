"""Rules for the order of frames and heads (RFC 9113 §5.1, §6 and §8.1)."""

from __future__ import annotations

from pomagent.protocol.http2.frames import FRAME_BYTES, STREAM, Code, Flag, Kind, Violation


def admit(
    kind: int, flags: int, stream: int, length: int, *, knows_settings: bool, is_open: bool, is_amid_head: bool
) -> None:  # fmt: skip
    """Raise Violation if a frame other than DATA may not come now, by its header.

    ``knows_settings``: the gateway has sent its SETTINGS. ``is_open``: the CONNECT was sent. ``is_amid_head``: a head
    is incomplete.
    """
    if not knows_settings and (kind != Kind.SETTINGS or flags & Flag.ACK):
        raise Violation(Code.PROTOCOL_ERROR, "no SETTINGS at the beginning; is it an HTTP/2 server?")
    if length > FRAME_BYTES:
        raise Violation(Code.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
    if is_amid_head != (kind == Kind.CONTINUATION):
        raise Violation(Code.PROTOCOL_ERROR, "a truncated head, or a continuation after its end")
    if kind in (Kind.SETTINGS, Kind.PING, Kind.GOAWAY):
        if stream:
            raise Violation(Code.PROTOCOL_ERROR, f"{Kind(kind).name} on a stream")
    elif kind == Kind.PUSH_PROMISE:
        raise Violation(Code.PROTOCOL_ERROR, "an unrequested push")
    elif kind <= Kind.CONTINUATION and not _is_known(kind, stream, is_open=is_open):
        raise Violation(Code.PROTOCOL_ERROR, f"{Kind(kind).name} on stream {stream}, which is not open")


def _is_known(kind: int, stream: int, *, is_open: bool) -> bool:
    if kind == Kind.PRIORITY:
        return stream > 0
    return (stream == STREAM and is_open) or (kind == Kind.WINDOW_UPDATE and not stream)


def admit_head(status: int, *, is_last: bool, has_answer: bool) -> None:
    """Raise Violation if a head with this ``status``, 0 for trailers, may not come now."""
    if (status == 0) != has_answer:
        raise Violation(Code.PROTOCOL_ERROR, "an answer without a status, or a second one")
    if status < 200 and is_last != (status == 0):
        raise Violation(Code.PROTOCOL_ERROR, "a provisional answer at the end, or trailers before it")
