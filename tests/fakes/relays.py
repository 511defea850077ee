"""A relay between two pairs of streams in memory. The test plays the outer ends."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import gevent

from pomagent.runtime.deadline import Clock
from pomagent.runtime.greenlets import GreenletReuse
from pomagent.sessions.ends import End
from pomagent.sessions.fair_share import FairShare
from pomagent.sessions.half_close import HalfClosePolicy
from pomagent.sessions.relay import Relay
from pomagent.settings import HalfClose
from tests.fakes.streams import stream_pair

_GREENLETS = GreenletReuse()


@dataclass(frozen=True)
class FakeRelayContext:
    """What relays share, without the rest of an agent."""

    fair_share: FairShare = field(default_factory=FairShare)
    greenlets: GreenletReuse = _GREENLETS
    clock: Clock = time.monotonic


class RunningRelay:
    """A relay in a greenlet of its own. The test plays ``application`` and ``gateway``."""

    def __init__(
        self, client_capacity: int = 64 * 1024, tunnel_capacity: int = 64 * 1024, *, half_close: HalfClose = "auto",
        half_close_timeout_s: float = 60.0, can_carry: bool = False, fair_share: FairShare | None = None,
        clock: Clock = time.monotonic,
    ) -> None:  # fmt: skip
        self.client, self.application = stream_pair(client_capacity)
        self.client.has_closed_answer = False
        self.tunnel, self.gateway = stream_pair(tunnel_capacity)
        self.relay = Relay(
            self.client, self.tunnel, HalfClosePolicy(half_close, half_close_timeout_s, can_carry),
            FakeRelayContext(fair_share or FairShare(), clock=clock),
        )  # fmt: skip
        self.after: list[str] = []
        """What the greenlet has done after the relay returned."""
        self._greenlet: gevent.Greenlet | None = None

    def start(self, early: bytes = b"") -> RunningRelay:
        self._greenlet = gevent.Greenlet(self._run, early)
        self._greenlet.start()
        return self

    def end(self, timeout_s: float = 10) -> End:
        """Return how the relay ended. Blocks until it has."""
        assert self._greenlet is not None
        result = self._greenlet.get(timeout=timeout_s)
        assert isinstance(result, End), f"an interrupt of the relay hit its caller: {result!r}"
        return result

    @property
    def has_ended(self) -> bool:
        return self._greenlet is not None and self._greenlet.ready()

    def kill(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    def _run(self, early: bytes) -> End:
        """Run the relay and then switch, as a session does, to receive any late interrupt of the relay."""
        end = self.relay.run(early)
        for _ in range(30):
            gevent.sleep(0)
        gevent.sleep(0.002)
        self.after.append("went on")
        return end
