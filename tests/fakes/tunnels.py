"""Tunnels without a network: the test decides when a dial succeeds, fails or meets a bug, and when a tunnel ends."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from gevent.event import AsyncResult

from pomagent.errors import TunnelError
from pomagent.protocol.lifecycle import Reason, State, advance
from pomagent.runtime.deadline import Clock

_NUMBERS = count(1)


class FakeTunnel:
    """What a pool sees of a tunnel."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock()
        self._on_end: Callable[[FakeTunnel], None] | None = None
        self._on_early: Callable[[FakeTunnel], None] = lambda _: None
        self.early = bytearray()
        self.accepted_s = 0.0
        self._is_dead = False
        self.request_id = f"tunnel-{next(_NUMBERS)}"
        self.state = State.DIALING
        self.reason: Reason | None = None
        self.was_warm = False

    def __repr__(self) -> str:
        return f"<FakeTunnel {self.request_id} {self.state.value}>"

    @property
    def is_ready(self) -> bool:
        return self.state is State.READY

    @property
    def age_ms(self) -> int:
        return round((self._clock() - self._since) * 1000)

    @property
    def is_watched(self) -> bool:
        return self._on_end is not None

    def keep_warm(self, on_end: Callable[[FakeTunnel], None], on_early: Callable[[FakeTunnel], None]) -> None:
        self.was_warm = True
        self._on_end, self._on_early = on_end, on_early
        self.look()

    def look_again(self) -> None:
        self.look()

    def look(self) -> None:
        if self._is_dead:
            self.end()

    def lease(self) -> None:
        self._on_end = None
        self.state = advance(self.state, State.ACTIVE)

    def close(self, reason: Reason) -> None:
        if self.state is not State.CLOSED:
            self._on_end = None
            self.state = advance(self.state, State.CLOSED)
            self.reason = reason

    def die_unnoticed(self) -> None:
        """End in a way that only the next look will show."""
        self._is_dead = True

    def say(self, words: bytes, after_s: float = 0.0) -> None:
        """Receive bytes of the destination, this long after the gateway accepted."""
        self.early += words
        self.accepted_s = after_s
        self._on_early(self)

    def end(self) -> None:
        """End by the gateway, and notify the watcher if there is one."""
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self)


class FakeDial:
    """One step of opening a tunnel, pending until the test completes it."""

    def __init__(self, step: str, tunnel: FakeTunnel, began: float, *, urgent: bool) -> None:
        self.step = step
        self.began = began
        self.urgent = urgent
        self.tunnel = tunnel
        self.is_over = False
        self._outcome = AsyncResult()

    def succeed(self) -> FakeTunnel:
        self.is_over = True
        self._outcome.set(None)
        return self.tunnel

    def fail(self, error: Exception) -> None:
        """Fail with a TunnelError as the network does, or with another exception as a bug does."""
        self.is_over = True
        self._outcome.set_exception(error)

    def wait(self) -> None:
        try:
            self._outcome.get()
        finally:
            self.is_over = True


class FakeOpener:
    """Opens tunnels. The steps in ``held`` wait for the test, the others succeed at once."""

    def __init__(self, clock: Clock, held: frozenset[str] = frozenset({"open"})) -> None:
        self._clock = clock
        self.held = held
        self.token_error: TunnelError | None = None
        self.bug: Exception | None = None
        """Raised by every dial while it is set, without any waiting."""
        self.dials: list[FakeDial] = []
        self.tunnels: list[FakeTunnel] = []

    @property
    def pending(self) -> list[FakeDial]:
        return [dial for dial in self.dials if not dial.is_over]

    @property
    def open_tunnels(self) -> list[FakeTunnel]:
        return [tunnel for tunnel in self.tunnels if tunnel.state is not State.CLOSED]

    def secure(self, *, urgent: bool = True) -> FakeTunnel:
        tunnel = FakeTunnel(self._clock)
        self.tunnels.append(tunnel)
        self._step("secure", tunnel, urgent=urgent)
        tunnel.state = advance(tunnel.state, State.SECURED)
        return tunnel

    def open(self, tunnel: FakeTunnel, *, urgent: bool = True) -> FakeTunnel:
        tunnel._on_end = None
        tunnel.state = advance(tunnel.state, State.OPENING)
        self._step("open", tunnel, urgent=urgent)
        tunnel.state = advance(tunnel.state, State.READY)
        return tunnel

    def _step(self, step: str, tunnel: FakeTunnel, *, urgent: bool) -> None:
        dial = FakeDial(step, tunnel, self._clock(), urgent=urgent)
        self.dials.append(dial)
        try:
            if self.bug is not None:
                raise self.bug
            if step in self.held:
                dial.wait()
        except Exception:
            tunnel.close(Reason.REFUSED)
            raise
        except BaseException:
            tunnel.close(Reason.ABORTED)
            raise
        finally:
            dial.is_over = True
