"""The layout of HTTP/2 frames (RFC 9113 §4 and §6), and the error for a gateway that violates the protocol."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9
FRAME_BYTES: Final = 16_384
"""Maximum payload of a received frame (the protocol's default). A gateway may accept larger ones."""
MOST_FRAME_BYTES: Final = 2**24 - 1

LOW_31_BITS: Final = 0x7FFFFFFF
"""Mask of a stream's number or a window. The highest bit is reserved."""
HEAD: Final = Struct(">IBI")
"""A frame's header: length and type in one word, flags, stream."""
_LONG: Final = Struct(">I")
_SETTING: Final = Struct(">HI")
_GOAWAY: Final = Struct(">II")

STREAM: Final = 1
"""The only stream: a connection carries one tunnel."""


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
    """``ACK`` and ``END_STREAM`` share a bit, in different frames."""

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
    """Reason of a RST_STREAM or GOAWAY (RFC 9113 §7)."""

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
    """Return the name, such as ``CONNECT_ERROR``, or the number of an unknown code."""
    return Code(code).name if code in Code._value2member_map_ else f"error {code}"


class Violation(Exception):
    """The gateway's frames violate the protocol, or exceed a limit of the agent. ``code`` goes into the GOAWAY."""

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
    """Return a GOAWAY that names no stream. ``why`` is for the gateway's log."""
    return frame(Kind.GOAWAY, 0, 0, _GOAWAY.pack(0, code) + why.encode()[:200])


def read_long(payload: bytes) -> int:
    """Return the number in a payload of four bytes. Raises Violation."""
    if len(payload) != _LONG.size:
        raise Violation(Code.FRAME_SIZE_ERROR, f"a frame of 4 bytes has {len(payload)}")
    value: int = _LONG.unpack(payload)[0]
    return value


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return pairs of a setting's number and value, in order. Raises Violation."""
    if len(payload) % _SETTING.size:
        raise Violation(Code.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
    return list(_SETTING.iter_unpack(payload))


def read_goaway(payload: bytes) -> tuple[int, int, str]:
    """Return the last stream served, the code and the debug text. Raises Violation."""
    if len(payload) < _GOAWAY.size:
        raise Violation(Code.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
    last, code = _GOAWAY.unpack_from(payload)
    debug = payload[_GOAWAY.size : _GOAWAY.size + 200].decode("ascii", "replace")
    return last & LOW_31_BITS, code, "".join(c for c in debug if c.isprintable())


def without_padding(payload: bytes) -> bytes:
    """Return the payload of a padded frame without its padding. Raises Violation."""
    if not payload or payload[0] >= len(payload):
        raise Violation(Code.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]
