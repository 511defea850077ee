"""Pauses between attempts to bind an address."""

from __future__ import annotations

from pomagent.listeners.rebinding import REBIND_MAX_S, keep_binding


def test_pauses_double_up_to_the_maximum_until_the_attempt_succeeds() -> None:
    waited: list[float] = []
    announced: list[float] = []

    def attempt(next_pause_s: float) -> bool:
        announced.append(next_pause_s)
        return len(announced) < 7

    keep_binding(attempt, waited.append)
    assert waited == [1, 2, 4, 8, 16, REBIND_MAX_S, REBIND_MAX_S]
    assert announced == [*waited[1:], REBIND_MAX_S]
