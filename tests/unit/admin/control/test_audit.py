"""The audit says what was asked for, and no secret."""

import pytest

from pomagent.admin.control.audit import LOGGED_ARGUMENTS, MAX_CHARACTERS, MAX_ITEMS, loggable_arguments


def test_what_steers_is_told():
    asked = {"routes": ["a", "b"], "sessions": [1, 2], "level": "debug", "for_s": 0.5, "drain": True}
    assert loggable_arguments(asked) == asked


def test_whatever_else_is_in_it_is_not():
    assert loggable_arguments({"token": "eyJ.S3CR3T.x", "gateway": "corp", "unknown": "S3CR3T"}) == {"gateway": "corp"}
    assert not {"token", "password", "secret"} & LOGGED_ARGUMENTS


@pytest.mark.parametrize(("count", "told"), [(20, 20), (21, 21), (5000, 21)])
def test_of_a_list_a_line_has_only_the_beginning(count, told):
    names = loggable_arguments({"routes": [str(number) for number in range(count)]})["routes"]
    assert len(names) == told
    assert names[:MAX_ITEMS] == [str(number) for number in range(MAX_ITEMS)]
    assert names[MAX_ITEMS:] == ([] if count == MAX_ITEMS else [f"and {count - MAX_ITEMS} more"])


@pytest.mark.parametrize("length", [MAX_CHARACTERS - 1, MAX_CHARACTERS, MAX_CHARACTERS + 1, 100_000])
def test_of_a_text_too(length):
    assert len(loggable_arguments({"level": "x" * length})["level"]) == min(length, MAX_CHARACTERS)
    assert len(loggable_arguments({"routes": ["x" * length]})["routes"][0]) == min(length, MAX_CHARACTERS)


@pytest.mark.parametrize("strange", [None, {"token": "eyJ.S3CR3T.x"}, {}])
def test_what_is_of_no_form_that_it_may_have_is_left_out(strange):
    assert loggable_arguments({"level": strange}) == {}


def test_nothing_nested_gets_through():
    assert "S3CR3T" not in str(loggable_arguments({"routes": [["S3CR3T"], {"token": "S3CR3T"}, None]}))
