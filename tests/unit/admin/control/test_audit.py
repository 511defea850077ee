"""The audit log contains harmless arguments and no secrets."""

import pytest

from pomagent.admin.control.audit import LOGGED_ARGUMENTS, MAX_CHARACTERS, MAX_ITEMS, loggable_arguments


def test_harmless_arguments_are_logged():
    body = {"routes": ["a", "b"], "sessions": [1, 2], "level": "debug", "for_s": 0.5, "drain": True}
    assert loggable_arguments(body) == body


def test_other_arguments_are_not_logged():
    assert loggable_arguments({"token": "eyJ.S3CR3T.x", "gateway": "corp", "unknown": "S3CR3T"}) == {"gateway": "corp"}
    assert not {"token", "password", "secret"} & LOGGED_ARGUMENTS


@pytest.mark.parametrize(("count", "logged"), [(20, 20), (21, 21), (5000, 21)])
def test_only_the_beginning_of_a_list_is_logged(count, logged):
    names = loggable_arguments({"routes": [str(number) for number in range(count)]})["routes"]
    assert len(names) == logged
    assert names[:MAX_ITEMS] == [str(number) for number in range(MAX_ITEMS)]
    assert names[MAX_ITEMS:] == ([] if count == MAX_ITEMS else [f"and {count - MAX_ITEMS} more"])


@pytest.mark.parametrize("length", [MAX_CHARACTERS - 1, MAX_CHARACTERS, MAX_CHARACTERS + 1, 100_000])
def test_only_the_beginning_of_a_text_is_logged(length):
    assert len(loggable_arguments({"level": "x" * length})["level"]) == min(length, MAX_CHARACTERS)
    assert len(loggable_arguments({"routes": ["x" * length]})["routes"][0]) == min(length, MAX_CHARACTERS)


@pytest.mark.parametrize("strange", [None, {"token": "eyJ.S3CR3T.x"}, {}])
def test_values_of_an_unexpected_type_are_left_out(strange):
    assert loggable_arguments({"level": strange}) == {}


def test_nested_values_are_left_out():
    assert "S3CR3T" not in str(loggable_arguments({"routes": [["S3CR3T"], {"token": "S3CR3T"}, None]}))
