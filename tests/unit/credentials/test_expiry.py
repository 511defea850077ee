"""What a token says about its end, and when to act upon it."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pomagent.credentials.expiry import (
    LADDER_S,
    LEAST_WAIT_S,
    SHORT_MARGIN_S,
    Life,
    life_of,
    next_step_at,
    refresh_at,
    step_of,
)

DAY = 86_400.0


def jwt(**claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"header.{body}.signature"


def test_a_token_tells_when_it_was_issued_and_when_it_ends() -> None:
    assert life_of(jwt(iat=100, exp=200.5)) == Life(100.0, 200.5)


@pytest.mark.parametrize(
    "token", ["opaque", "a.b.c", "a..c", jwt(), jwt(exp="soon"), jwt(exp=True), jwt(exp=-1), jwt(exp=1e300), "a.W10.c"]
)
def test_a_token_that_does_not_say_lives_for_ever(token: str) -> None:
    life = life_of(token)
    assert life.expires_at is None
    assert refresh_at(life, 0) is None
    assert next_step_at(life, 0) is None
    assert step_of(life, 1e12) == 0


@given(st.text())
def test_no_text_is_too_odd_for_a_token(token: str) -> None:
    life_of(token)


@given(st.text(max_size=60))
def test_no_body_is_too_odd_for_a_token(body: str) -> None:
    life_of("a." + base64.urlsafe_b64encode(body.encode(errors="replace")).decode() + ".c")


def test_a_long_life_is_refreshed_at_its_half() -> None:
    assert refresh_at(Life(0, 10 * DAY), 0) == 5 * DAY


def test_a_short_life_is_refreshed_shortly_before_its_end() -> None:
    assert refresh_at(Life(0, 3600), 0) == 3600 - SHORT_MARGIN_S


def test_a_token_that_has_expired_already_is_not_refreshed_in_a_loop() -> None:
    assert refresh_at(Life(0, 100), 500) == 500 + LEAST_WAIT_S


@pytest.mark.parametrize(
    ("left", "step"),
    [(8 * DAY, 0), (7 * DAY + 1, 0), (7 * DAY, 1), (DAY, 2), (3600, 3), (3599, 3), (1, 3), (0, 4), (-5, 4)],
)
def test_the_ladder_goes_down_at_a_week_a_day_an_hour_and_the_end(left: float, step: int) -> None:
    assert step_of(Life(None, 1e9), 1e9 - left) == step


@given(st.floats(-1e6, 1e6))
def test_the_next_step_is_never_behind_and_is_a_step(left: float) -> None:
    life, now = Life(None, 1e9), 1e9 - left
    at = next_step_at(life, now)
    if at is None:
        assert step_of(life, now) == len(LADDER_S)
    else:
        assert at > now
        assert step_of(life, at) == step_of(life, now) + 1
