"""The layout of HTTP/2 frames (RFC 9113 §4 and §6), and what a gateway says by breaking the rules."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9
FRAME_BYTES: Final = 16_384
"""The largest payload of a frame that we take (the protocol's default); a peer may allow us more."""
MOST_FRAME_BYTES: Final = 2**24 - 1

LOW_31_BITS: Final = 0x7FFFFFFF
"""Of a stream's number or a window: the highest bit is reserved."""
HEAD: Final = Struct(">IBI")
"""Length and type in one word, flags, stream."""
_LONG: Final = Struct(">I")
_SETTING: Final = Struct(">HI")
_GOAWAY: Final = Struct(">II")

STREAM: Final = 1
"""The only stream there is: a connection carries one tunnel."""


class Kind(IntEnum):
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(IntEnum):
    """``ACK`` and ``END_STREAM`` share a bit, of different frames."""

    END_STREAM = 0x1
    ACK = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class Setting(IntEnum):
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Code(IntEnum):
    """Why a stream was reset, or a connection goes away (RFC 9113 §7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


def code_name(code: int) -> str:
    """``CONNECT_ERROR``, or a number that the standard does not know."""
    return Code(code).name if code in Code._value2member_map_ else f"error {code}"


class Violation(Exception):
    """The gateway's frames break a rule, or exceed a limit of ours; ``code`` is what it is told."""

    def __init__(self, code: Code, what: str) -> None:
        self.code = code
        super().__init__(what)


def frame(kind: Kind, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings(values: dict[Setting, int]) -> bytes:
    return frame(Kind.SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in values.items()))


def window_update(stream: int, increment: int) -> bytes:
    return frame(Kind.WINDOW_UPDATE, 0, stream, _LONG.pack(increment))


def rst_stream(code: Code) -> bytes:
    return frame(Kind.RST_STREAM, 0, STREAM, _LONG.pack(code))


def goaway(code: Code, why: str = "") -> bytes:
    """No stream of the peer's was ever open; ``why`` is for whoever reads its log."""
    return frame(Kind.GOAWAY, 0, 0, _GOAWAY.pack(0, code) + why.encode()[:200])


def read_long(payload: bytes) -> int:
    """A whole payload of four bytes, without the reserved bit that some of them have. Raises Violation."""
    if len(payload) != _LONG.size:
        raise Violation(Code.FRAME_SIZE_ERROR, f"a frame of 4 bytes has {len(payload)}")
    value: int = _LONG.unpack(payload)[0]
    return value


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Pairs of a number and its value, in their order. Raises Violation."""
    if len(payload) % _SETTING.size:
        raise Violation(Code.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
    return list(_SETTING.iter_unpack(payload))


def read_goaway(payload: bytes) -> tuple[int, int, str]:
    """The last stream that is served, the code, what it says about it. Raises Violation."""
    if len(payload) < _GOAWAY.size:
        raise Violation(Code.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
    last, code = _GOAWAY.unpack_from(payload)
    said = payload[_GOAWAY.size : _GOAWAY.size + 200].decode("ascii", "replace")
    return last & LOW_31_BITS, code, "".join(c for c in said if c.isprintable())


def without_padding(payload: bytes) -> bytes:
    """Of a frame that has the flag. Raises Violation."""
    if not payload or payload[0] >= len(payload):
        raise Violation(Code.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]
