"""Turns pydantic's errors into sentences: what is wrong, what was expected. Values are not repeated, except numbers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from typing import Any

from pydantic import BaseModel

_SECRET_KEYS = frozenset(
    {"token", "jwt", "secret", "password", "bearer", "authorization", "service_account", "api_key"}
)
_SECRET_ENDINGS = ("_token", "_jwt", "_password", "_secret")
"""Names of keys, and their endings, under which operators paste a token into the file."""
_OF_ONE_ROUTE = frozenset({"name", "from", "listen"})
_PATTERNS = {
    "name": "expected a-z 0-9 - _ . only, with a letter or a digit first",
    "log_sessions": 'expected "all", "errors", "none", or a share such as "1/100"',
    "socket_mode": 'expected an octal mode such as "0660"',
}


def describe(value: Any) -> str:
    """Return the kind of a value, or the value itself if it is a number."""
    for kind, words in (
        (bool, "a boolean"),
        (str, "a string"),
        (list, "an array"),
        (dict, "a table"),
        ((date, time), "a date or time"),
    ):
        if isinstance(value, kind):
            return words
    return str(value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a suggestion to append to a sentence, or an empty string."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def unknown_key(name: str, model: type[BaseModel]) -> str:
    """Return the message for a key that the model does not have."""
    if name.lower() in _SECRET_KEYS or name.lower().endswith(_SECRET_ENDINGS):
        return (
            "move the token to a file of its own and name that in service_account_file; this file must not hold tokens"
        )
    if name in _OF_ONE_ROUTE:
        return "belongs in a [[routes]] entry; unknown key here"
    known = [field.alias or key for key, field in model.model_fields.items()]
    return "unknown key" + did_you_mean(name, known)


def sentence(error: Mapping[str, Any], model: type[BaseModel], value: Any) -> str:
    """Return one of pydantic's errors as a sentence. ``value`` is the value of the key."""
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return unknown_key(name, model)
    if error["type"] == "missing":
        return f"is missing; expected {_description(name, model)}"
    if word := _TYPES.get(error["type"]):
        unit = " of seconds" if name.endswith("_s") else ""
        if len(error["loc"]) > 1 and isinstance(value, list):
            return f"contains {describe(value[error['loc'][1]])}; expected {word}"
        return f"is {describe(value)}; expected {word}{unit}"
    if describe_bound := _BOUNDS.get(error["type"]):
        return describe_bound(name, error.get("ctx", {}), describe(value))
    message = str(error["msg"])
    return message[:1].lower() + message[1:]


def _description(name: str, model: type[BaseModel]) -> str:
    found = (field.description for key, field in model.model_fields.items() if name in {key, field.alias})
    sentence = str(next(found, "")).partition(". ")[0].removesuffix(".")
    return sentence[:1].lower() + sentence[1:]


_TYPES = {
    "string_type": "a string",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
}

_BOUNDS: dict[str, Callable[[str, Mapping[str, Any], str], str]] = {
    "greater_than_equal": lambda _, limit, given: f"is {given}; expected at least {limit['ge']:.10g}",
    "greater_than": lambda _, limit, given: f"is {given}; expected more than {limit['gt']:.10g}",
    "less_than_equal": lambda _, limit, given: f"is {given}; expected at most {limit['le']:.10g}",
    "finite_number": lambda _, __, given: f"is {given}; expected a finite number",
    "literal_error": lambda _, limit, __: f"expected {limit['expected']}",
    "string_too_short": lambda *_: "is empty",
    "too_short": lambda *_: "is empty",
    "string_too_long": lambda _, limit, __: f"is longer than {limit['max_length']} characters",
    "string_pattern_mismatch": lambda name, *_: _PATTERNS[name],
}
