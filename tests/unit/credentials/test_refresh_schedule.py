"""When a token expires by its own claims, and when to act on it."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pomagent.credentials.refresh_schedule import (
    MAX_SLEEP_S,
    MIN_REFRESH_PAUSE_S,
    MIN_SLEEP_S,
    SHORT_MARGIN_S,
    WARN_BEFORE_S,
    Life,
    life_of,
    next_warning_at,
    refresh_at,
    retry_at,
    sleep_s,
    warning_step,
)

DAY = 86_400.0


def jwt(**claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"header.{body}.signature"


def test_issue_and_expiry_are_read_from_the_claims() -> None:
    assert life_of(jwt(iat=100, exp=200.5)) == Life(100.0, 200.5)


@pytest.mark.parametrize(
    "token", ["opaque", "a.b.c", "a..c", jwt(), jwt(exp="soon"), jwt(exp=True), jwt(exp=-1), jwt(exp=1e300), "a.W10.c"]
)
def test_a_token_without_an_expiry_never_expires(token: str) -> None:
    life = life_of(token)
    assert life.expires_at is None
    assert refresh_at(life, 0) is None
    assert next_warning_at(life, 0) is None
    assert warning_step(life, 1e12) == 0


@given(st.text())
def test_any_text_has_a_life(token: str) -> None:
    life_of(token)


@given(st.text(max_size=60))
def test_any_payload_has_a_life(body: str) -> None:
    life_of("a." + base64.urlsafe_b64encode(body.encode(errors="replace")).decode() + ".c")


def test_a_long_lived_token_is_refreshed_at_half_life() -> None:
    assert refresh_at(Life(0, 10 * DAY), 0) == 5 * DAY


def test_a_short_lived_token_is_refreshed_shortly_before_it_expires() -> None:
    assert refresh_at(Life(0, 3600), 0) == 3600 - SHORT_MARGIN_S


def test_an_expired_token_is_not_refreshed_in_a_loop() -> None:
    assert refresh_at(Life(0, 100), 500) == 500 + MIN_REFRESH_PAUSE_S


@pytest.mark.parametrize(
    ("failed_at", "expected"),
    [
        (float("-inf"), 100.0),
        (200.0 - MIN_REFRESH_PAUSE_S, 100.0),
        (190.0, 190.0 + MIN_REFRESH_PAUSE_S),
        (201.0, 100.0),  # the clock was set back
    ],
)
def test_a_failure_postpones_the_refresh_while_it_is_recent(failed_at: float, expected: float) -> None:
    assert retry_at(100.0, failed_at, now=200.0) == expected


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        ((None, None), None),
        ((None, 60.0), 10.0),
        ((70.0, 60.0), 10.0),
        ((40.0,), MIN_SLEEP_S),
        ((50.0 + 30 * DAY,), MAX_SLEEP_S),
    ],
)
def test_a_sleep_ends_at_the_first_moment_within_bounds(
    moments: tuple[float | None, ...], expected: float | None
) -> None:
    assert sleep_s(moments, now=50.0) == expected


@pytest.mark.parametrize(
    ("left", "step"),
    [(8 * DAY, 0), (7 * DAY + 1, 0), (7 * DAY, 1), (DAY, 2), (3600, 3), (3599, 3), (1, 3), (0, 4), (-5, 4)],
)
def test_warnings_come_at_a_week_a_day_an_hour_and_the_expiry(left: float, step: int) -> None:
    assert warning_step(Life(None, 1e9), 1e9 - left) == step


@given(st.floats(-1e6, 1e6))
def test_the_next_warning_is_ahead_and_one_step_further(left: float) -> None:
    life, now = Life(None, 1e9), 1e9 - left
    at = next_warning_at(life, now)
    if at is None:
        assert warning_step(life, now) == len(WARN_BEFORE_S)
    else:
        assert at > now
        assert warning_step(life, at) == warning_step(life, now) + 1
