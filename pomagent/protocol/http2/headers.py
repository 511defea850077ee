"""Header blocks of the CONNECT (RFC 9113 §8.5) and its answer, within limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hpack import Decoder, Encoder, HPACKError, NeverIndexedHeaderTuple, OversizedHeaderListError

from pomagent.protocol.http2.frames import (
    FRAME_BYTES,
    STREAM,
    Code,
    Flag,
    Kind,
    Violation,
    frame,
    without_padding,
)

MAX_BLOCK_BYTES: Final = 64 * 1024
"""Maximum bytes of an answer's head, packed and unpacked. The same limit as over HTTP/1.1."""
MAX_CONTINUATIONS: Final = 64
"""Maximum CONTINUATION frames of one head. Empty frames would evade the limit of bytes."""
_PRIORITY_BYTES: Final = 5
_HOP_BY_HOP: Final = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
"""Headers that HTTP/2 forbids (RFC 9113 §8.2.2)."""


@dataclass(frozen=True, slots=True)
class Head:
    """A gateway's answer without its body."""

    status: int
    """The status. 0 for trailers, which have none."""
    headers: Mapping[str, str]
    """Values by lower-case name. The first value of a repeated header."""


def connect_frames(destination: str, headers: Mapping[str, str]) -> bytes:
    """Return the CONNECT as frames. Raises ValueError for headers that a request cannot carry."""
    block = _connect_block(destination, headers)
    parts = [block[at : at + FRAME_BYTES] for at in range(0, len(block), FRAME_BYTES)]
    kinds = [Kind.HEADERS, *[Kind.CONTINUATION] * (len(parts) - 1)]
    flags = [*[0] * (len(parts) - 1), Flag.END_HEADERS]
    return b"".join(frame(kind, flag, STREAM, part) for kind, flag, part in zip(kinds, flags, parts, strict=True))


def _connect_block(destination: str, headers: Mapping[str, str]) -> bytes:
    fields = [(":method", "CONNECT"), (":authority", destination), *((n.lower(), v) for n, v in headers.items())]
    for name, value in fields:
        if not (name.isascii() and value.isascii() and value.isprintable() and value == value.strip()):
            raise ValueError(f"a request to {destination!r} cannot carry these headers: {', '.join(headers)}")
    encoder = Encoder()
    encoder.header_table_size = 0  # a single request gains nothing from a table, and tokens must not enter one
    return bytes(encoder.encode([NeverIndexedHeaderTuple(*field) for field in fields]))


class HeadReader:
    """Joins header blocks from their frames, and unpacks them."""

    __slots__ = ("_block", "_continuations", "_decoder", "_is_last")

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=MAX_BLOCK_BYTES)
        self._block: bytearray | None = None
        self._is_last = False
        self._continuations = 0

    @property
    def is_amid(self) -> bool:
        """Whether a head is incomplete, so that only its CONTINUATION may follow."""
        return self._block is not None

    def begin(self, flags: int, payload: bytes) -> tuple[Head, bool] | None:
        """Process a HEADERS frame. Return the head and whether it ends the stream, or None if it is incomplete.

        Raises Violation.
        """
        if flags & Flag.PADDED:
            payload = without_padding(payload)
        if flags & Flag.PRIORITY:
            if len(payload) < _PRIORITY_BYTES:
                raise Violation(Code.FRAME_SIZE_ERROR, "a head too short for its priority")
            payload = payload[_PRIORITY_BYTES:]
        self._block, self._is_last, self._continuations = bytearray(), bool(flags & Flag.END_STREAM), 0
        return self._add(flags, payload)

    def go_on(self, flags: int, payload: bytes) -> tuple[Head, bool] | None:
        """Process a CONTINUATION frame as ``begin`` does. Raises Violation."""
        self._continuations += 1
        if self._continuations > MAX_CONTINUATIONS:
            raise Violation(Code.ENHANCE_YOUR_CALM, f"a head of more than {MAX_CONTINUATIONS} frames")
        return self._add(flags, payload)

    def _add(self, flags: int, payload: bytes) -> tuple[Head, bool] | None:
        assert self._block is not None
        self._block += payload
        if len(self._block) > MAX_BLOCK_BYTES:
            raise Violation(Code.ENHANCE_YOUR_CALM, f"a head of more than {MAX_BLOCK_BYTES} bytes")
        if not flags & Flag.END_HEADERS:
            return None
        block, self._block = bytes(self._block), None
        return _unpack(self._decoder, block), self._is_last


def _unpack(decoder: Decoder, block: bytes) -> Head:
    """Return the head in a block. Raises Violation."""
    try:
        fields = decoder.decode(block, raw=True)
    except OversizedHeaderListError as error:
        raise Violation(Code.ENHANCE_YOUR_CALM, f"a head that unpacks to more than {MAX_BLOCK_BYTES} bytes") from error
    except HPACKError as error:
        raise Violation(Code.COMPRESSION_ERROR, f"a head that cannot be unpacked ({type(error).__name__})") from error
    status = 0
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name == ":status" and not status and not headers:
            status = _status(value)
        elif not name or name.startswith(":") or name != name.lower() or name in _HOP_BY_HOP:
            raise Violation(Code.PROTOCOL_ERROR, f"a header that an answer cannot have: {name[:40]!r}")
        else:
            headers.setdefault(name, value)
    return Head(status, headers)


def _status(value: str) -> int:
    if len(value) != 3 or not (value.isascii() and value.isdigit()) or value[0] not in "12345":
        raise Violation(Code.PROTOCOL_ERROR, f"the status {value[:10]!r}")
    return int(value)
