"""Which of a gateway's addresses to dial first: what failed lately comes last. Pure."""

from __future__ import annotations

from typing import TypeVar

AVOID_S = 60.0
"""A dead address costs each dial its head start, or its whole budget; a mended one is tried again soon enough."""

A = TypeVar("A")


class AddressBook:
    """Failures by address, ``(host, port)``; forgotten after a while and with the next success."""

    def __init__(self) -> None:
        self._failed_at: dict[tuple[str, int], float] = {}

    def failed(self, address: tuple[str, int], now: float) -> None:
        self._failed_at = {known: at for known, at in self._failed_at.items() if now - at < AVOID_S}
        self._failed_at[address] = now

    def worked(self, address: tuple[str, int]) -> None:
        self._failed_at.pop(address, None)

    def forget(self) -> None:
        """Something was mended, and nobody knows where."""
        self._failed_at.clear()

    def order(self, addresses: list[tuple[A, tuple[str, int]]], now: float) -> list[tuple[A, tuple[str, int]]]:
        """In their order, but those that failed lately last, the longest ago first; none is ever left out."""
        if not self._failed_at:
            return addresses

        def when_failed(address: tuple[A, tuple[str, int]]) -> float:
            at = self._failed_at.get(address[1], -AVOID_S)
            return at if now - at < AVOID_S else -AVOID_S

        return sorted(addresses, key=when_failed)  # stable

    def avoided(self, now: float) -> list[str]:
        """Those that come last now, for people."""
        return [f"{host}:{port}" for (host, port), at in self._failed_at.items() if now - at < AVOID_S]
