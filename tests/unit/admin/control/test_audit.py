"""The audit says what was asked for, and no secret."""

import pytest

from pomagent.admin.control.audit import MOST, MOST_CHARACTERS, TELLABLE, arguments


def test_what_steers_is_told():
    asked = {"routes": ["a", "b"], "sessions": [1, 2], "level": "debug", "for_s": 0.5, "drain": True}
    assert arguments(asked) == asked


def test_whatever_else_is_in_it_is_not():
    assert arguments({"token": "eyJ.S3CR3T.x", "gateway": "corp", "unknown": "S3CR3T"}) == {"gateway": "corp"}
    assert not {"token", "password", "secret"} & TELLABLE


@pytest.mark.parametrize(("count", "told"), [(MOST, MOST), (MOST + 1, MOST + 1), (5000, MOST + 1)])
def test_of_a_list_a_line_has_only_the_beginning(count, told):
    names = arguments({"routes": [str(number) for number in range(count)]})["routes"]
    assert len(names) == told
    assert names[:MOST] == [str(number) for number in range(MOST)]
    assert names[MOST:] == ([] if count == MOST else [f"and {count - MOST} more"])


@pytest.mark.parametrize("length", [MOST_CHARACTERS - 1, MOST_CHARACTERS, MOST_CHARACTERS + 1, 100_000])
def test_of_a_text_too(length):
    assert len(arguments({"level": "x" * length})["level"]) == min(length, MOST_CHARACTERS)
    assert len(arguments({"routes": ["x" * length]})["routes"][0]) == min(length, MOST_CHARACTERS)


@pytest.mark.parametrize("strange", [None, {"token": "eyJ.S3CR3T.x"}, {}])
def test_what_is_of_no_form_that_it_may_have_is_left_out(strange):
    assert arguments({"level": strange}) == {}


def test_nothing_nested_gets_through():
    assert "S3CR3T" not in str(arguments({"routes": [["S3CR3T"], {"token": "S3CR3T"}, None]}))
