"""How a gateway answers, and how long each step to it takes; counters never go back while it is in use."""

from __future__ import annotations

from collections import Counter, defaultdict

from pomagent.runtime.histogram import Histogram

CODES = frozenset({200, 301, 302, 303, 307, 308, 400, 401, 403, 404, 408, 421, 426, 429, 431, 450, 495, 500, 501, 502,
                   503, 504})  # fmt: skip
"""That are counted by themselves; others by their first digit: what a gateway says must not make series without end."""


class GatewayCounts:
    """Of all routes that use it."""

    def __init__(self) -> None:
        self.phases: defaultdict[str, Histogram] = defaultdict(Histogram)
        """Seconds, by ``dns``, ``tcp``, ``tls`` and ``connect``; only of steps that led to the next one."""
        self.answers: Counter[str] = Counter()
        """To CONNECTs, by status."""

    def took(self, **phases_ms: float | None) -> None:
        """Milliseconds of some steps; None for one that did not happen."""
        for name, milliseconds in phases_ms.items():
            if milliseconds is not None:
                self.phases[name].observe(milliseconds / 1000)

    def answered(self, status: int) -> None:
        self.answers[str(status) if status in CODES else f"{str(status)[0]}xx"] += 1
