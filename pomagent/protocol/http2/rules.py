"""Which frames may come when (RFC 9113 §5.1 and §6), as far as their heads tell."""

from __future__ import annotations

from pomagent.protocol.http2.frames import FRAME_BYTES, STREAM, Code, Flag, Kind, Violation


def admit(
    kind: int, flags: int, stream: int, length: int, *, knows_settings: bool, is_open: bool, is_amid_head: bool
) -> None:  # fmt: skip
    """Whether a frame other than DATA may come now. Raises Violation.

    ``knows_settings``: the gateway has begun as it must; ``is_open``: the CONNECT was sent; ``is_amid_head``: a head
    has begun and not ended.
    """
    if not knows_settings and (kind != Kind.SETTINGS or flags & Flag.ACK):
        raise Violation(Code.PROTOCOL_ERROR, "no SETTINGS at the beginning: is that HTTP/2?")
    if length > FRAME_BYTES:
        raise Violation(Code.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
    if is_amid_head != (kind == Kind.CONTINUATION):
        raise Violation(Code.PROTOCOL_ERROR, "a head that is broken off, or goes on after its end")
    if kind in (Kind.SETTINGS, Kind.PING, Kind.GOAWAY):
        if stream:
            raise Violation(Code.PROTOCOL_ERROR, f"{Kind(kind).name} on a stream")
    elif kind == Kind.PUSH_PROMISE:
        raise Violation(Code.PROTOCOL_ERROR, "a push that nobody wants")
    elif kind <= Kind.CONTINUATION and not _is_known(kind, stream, is_open=is_open):
        raise Violation(Code.PROTOCOL_ERROR, f"{Kind(kind).name} on stream {stream}, which nobody opened")


def _is_known(kind: int, stream: int, *, is_open: bool) -> bool:
    if kind == Kind.PRIORITY:
        return stream > 0
    return (stream == STREAM and is_open) or (kind == Kind.WINDOW_UPDATE and not stream)
