"""Counts a gateway's answers and times each step of a dial. Counters never decrease while the gateway is in use."""

from __future__ import annotations

from collections import Counter, defaultdict

from pomagent.runtime.histogram import Histogram

CODES = frozenset({200, 301, 302, 303, 307, 308, 400, 401, 403, 404, 408, 421, 426, 429, 431, 450, 495, 500, 501, 502,
                   503, 504})  # fmt: skip
"""Statuses with a counter of their own. Others are counted by first digit, to bound the number of series."""


class GatewayCounts:
    """Counters of one gateway's address, over all its routes."""

    def __init__(self) -> None:
        self.phases: defaultdict[str, Histogram] = defaultdict(Histogram)
        """Seconds by phase, ``dns``, ``tcp``, ``tls`` and ``connect``. Failed phases are not counted."""
        self.answers: Counter[str] = Counter()
        """Answers to CONNECTs by status."""

    def took(self, **phases_ms: float | None) -> None:
        """Record the milliseconds of some phases. None for a phase that did not happen."""
        for name, milliseconds in phases_ms.items():
            if milliseconds is not None:
                self.phases[name].observe(milliseconds / 1000)

    def answered(self, status: int) -> None:
        """Count an answer to a CONNECT."""
        self.answers[str(status) if status in CODES else f"{str(status)[0]}xx"] += 1
