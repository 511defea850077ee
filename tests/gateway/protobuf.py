"""Enough of the protocol buffers' wire format for two messages, so that no generated code is needed."""

from collections.abc import Iterator

VARINT, FIXED64, BYTES = 0, 1, 2
Field = int | bytes


def decode(message: bytes) -> dict[int, list[Field]]:
    """The values of every field, by field number, in the order in which they came."""
    fields: dict[int, list[Field]] = {}
    for number, value in _values(message):
        fields.setdefault(number, []).append(value)
    return fields


def encode_bytes(number: int, value: bytes | str) -> bytes:
    """A string, bytes or an embedded message as one field."""
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | BYTES) + _varint(len(data)) + data


def encode_int(number: int, value: int) -> bytes:
    """An integer, boolean or enumerated value as one field."""
    return _varint(number << 3 | VARINT) + _varint(value)


def text(fields: dict[int, list[Field]], number: int) -> str:
    """A string field, or "" if it is absent."""
    return _last_bytes(fields, number).decode("utf-8", "replace")


def inner(fields: dict[int, list[Field]], number: int) -> dict[int, list[Field]]:
    """An embedded message, or an empty one if it is absent."""
    return decode(_last_bytes(fields, number))


def string_map(fields: dict[int, list[Field]], number: int) -> dict[str, str]:
    """A ``map<string, string>`` field."""
    entries = (decode(entry) for entry in fields.get(number, []) if isinstance(entry, bytes))
    return {text(entry, 1): text(entry, 2) for entry in entries}


def _last_bytes(fields: dict[int, list[Field]], number: int) -> bytes:
    value = fields.get(number, [b""])[-1]
    return value if isinstance(value, bytes) else b""


def _values(message: bytes) -> Iterator[tuple[int, Field]]:
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        value, at = _read_value(message, at, tag & 7)
        yield tag >> 3, value


def _read_value(message: bytes, at: int, kind: int) -> tuple[Field, int]:
    if kind == VARINT:
        return _read_varint(message, at)
    if kind == BYTES:
        size, at = _read_varint(message, at)
    else:
        size = 8 if kind == FIXED64 else 4
    return message[at : at + size], at + size


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
