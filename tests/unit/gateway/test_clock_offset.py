"""The offset of two clocks by a Date header, and its sentence."""

from __future__ import annotations

import pytest

from pomagent.gateway.clock_offset import duration, is_off, offset_s, problem

NOW = 784_111_777.0  # RFC 9110's own example, in all three forms that a recipient must read


@pytest.mark.parametrize(
    "date", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_every_form_of_a_date_is_read(date: str) -> None:
    assert offset_s(date, NOW - 30) == 30


@pytest.mark.parametrize("date", ["", "now", "Sun, 06 Nov 99999 08:49:37 GMT", "Sun, 99 Nov 1994 08:49:37 GMT"])
def test_malformed_date_gives_no_offset(date: str) -> None:
    assert offset_s(date, NOW) is None


@pytest.mark.parametrize(
    ("offset", "expected"), [(None, False), (0, False), (60, False), (60.1, True), (-60, False), (-61, True)]
)
def test_offset_up_to_a_minute_counts_as_agreement(offset: float | None, expected: bool) -> None:
    assert is_off(offset) is expected
    assert bool(problem(offset)) is expected


def test_problem_names_the_direction() -> None:
    assert problem(7200) == "this host's clock is 2 hours behind the gateway's: set it, or the gateway's"
    assert problem(-90) == "this host's clock is 1 minute ahead of the gateway's: set it, or the gateway's"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 seconds"), (1, "1 second"), (59, "59 seconds"), (60, "1 minute"), (3599, "59 minutes"),
     (3600, "1 hour"), (86_400, "1 day"), (10 * 86_400, "10 days")],
)  # fmt: skip
def test_duration_is_in_its_largest_unit(seconds: float, words: str) -> None:
    assert duration(seconds) == words
