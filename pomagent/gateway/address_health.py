"""Orders a gateway's addresses for dialling: addresses that failed recently come last. Pure."""

from __future__ import annotations

from typing import TypeVar

AVOID_S = 60.0
"""Seconds that a failed address comes last: dialling it costs a head start, or all of the dial's time."""

A = TypeVar("A")


class AddressHealth:
    """Recent failures by address, ``(host, port)``. A failure expires, and a success clears it."""

    def __init__(self) -> None:
        self._failed_at: dict[tuple[str, int], float] = {}

    def failed(self, address: tuple[str, int], now: float) -> None:
        """Record a failure, and drop expired ones."""
        self._failed_at = {known: at for known, at in self._failed_at.items() if now - at < AVOID_S}
        self._failed_at[address] = now

    def succeeded(self, address: tuple[str, int]) -> None:
        """Clear an address's failure."""
        self._failed_at.pop(address, None)

    def clear(self) -> None:
        """Clear all failures."""
        self._failed_at.clear()

    def order(self, addresses: list[tuple[A, tuple[str, int]]], now: float) -> list[tuple[A, tuple[str, int]]]:
        """Return all addresses in the given order, failed ones last, and of these the oldest failure first."""
        if not self._failed_at:
            return addresses

        def failed_at(address: tuple[A, tuple[str, int]]) -> float:
            at = self._failed_at.get(address[1], -AVOID_S)
            return at if now - at < AVOID_S else -AVOID_S

        return sorted(addresses, key=failed_at)  # stable

    def avoided(self, now: float) -> list[str]:
        """Return the addresses that come last now, as ``host:port``."""
        return [f"{host}:{port}" for (host, port), at in self._failed_at.items() if now - at < AVOID_S]
