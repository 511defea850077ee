"""One CONNECT tunnel from dial to close; it serves one session and is never used again."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import SecretStr

from pomagent.errors import StreamLost
from pomagent.gateway.dialer import Timings
from pomagent.protocol.lifecycle import Reason, State, advance
from pomagent.runtime.deadline import Clock
from pomagent.settings import Credential, Gateway
from pomagent.transport import tcp
from pomagent.transport.http2_stream import Http2Stream, TunnelStream
from pomagent.transport.lingering_close import linger
from pomagent.transport.stream import SocketStream

MAX_EARLY_BYTES = 16 * 1024
"""Kept of what the destination says while nobody listens: greetings are short; the rest stays with the kernel."""
GOODBYE_TIMEOUT_S = 2.0
"""For the gateway to end its side after it has got everything of ours, or to take more of it: our close must not
destroy what it has not yet forwarded."""
HTTP2_GOODBYE_TIMEOUT_S = 10.0
"""The same over HTTP/2, where the gateway's end is the destination's own, which first takes what the gateway holds."""


@dataclass(frozen=True, slots=True)
class Presented:
    """What a gateway was shown when it accepted a tunnel."""

    gateway: Gateway
    credential: Credential
    token: SecretStr


def _ignore(_: object) -> None:
    """What happens to early bytes that nobody asked about."""


class Tunnel:
    """A connection to the gateway on its way through the states of ``protocol.lifecycle``."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._stream: TunnelStream | None = None
        self._on_end: Callable[[Tunnel], None] | None = None
        self._on_early: Callable[[Tunnel], None] = _ignore
        self._since = self._accepted_at = clock()
        self.state = State.DIALING
        self.timings = Timings()
        self.request_id = ""
        self.presented: Presented | None = None
        """With the CONNECT; None for none."""
        self.reason: Reason | None = None
        """Why it was closed."""
        self.early = bytearray()
        """What the destination said before a session leased the tunnel."""
        self.was_warm = False
        """Whether it waited in a pool before it was leased, with its CONNECT or without."""
        self.may_be_stale = False
        """Whether it waited with its CONNECT accepted: it may have died, and nobody has noticed yet."""

    def __repr__(self) -> str:
        return f"<Tunnel {self.state.value}{' warm' if self.was_warm else ''} {self.request_id}>"

    @property
    def stream(self) -> TunnelStream:
        assert self._stream is not None, "a tunnel has a stream once it is secured"
        return self._stream

    @property
    def is_ready(self) -> bool:
        return self.state is State.READY

    @property
    def is_secured(self) -> bool:
        return self.state is State.SECURED

    @property
    def certificate_expires(self) -> str | None:
        """Of the gateway's certificate, as an ISO 8601 time; None where it was not verified."""
        until = None if isinstance(self.stream, SocketStream) else self.stream.peer_certificate().get("notAfter")
        if not isinstance(until, str):
            return None
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(until), UTC).isoformat().replace("+00:00", "Z")

    @property
    def transport(self) -> Literal["http1", "http2"]:
        """Of a secured tunnel: what it came to, which may be less than what the gateway's table asks for."""
        return "http2" if isinstance(self.stream, Http2Stream) else "http1"

    @property
    def age_ms(self) -> int:
        return round((self._clock() - self._since) * 1000)

    @property
    def accepted_s(self) -> float:
        """How long ago the gateway accepted it, in seconds."""
        return self._clock() - self._accepted_at

    def securing(self) -> None:
        self.state = advance(self.state, State.SECURING)

    def secured(self, stream: TunnelStream, timings: Timings) -> None:
        self.state = advance(self.state, State.SECURED)
        self._stream, self.timings = stream, timings

    def opening(self) -> None:
        self.unwatch()
        self.state = advance(self.state, State.OPENING)

    def accepted(self, request_id: str, early: bytes, presented: Presented | None = None) -> None:
        self.state = advance(self.state, State.READY)
        self._accepted_at = self._clock()
        self.request_id = request_id
        self.presented = presented
        self.early += early

    def keep_warm(self, on_end: Callable[[Tunnel], None], on_early: Callable[[Tunnel], None] = _ignore) -> None:
        """Watch the waiting tunnel: keep what the destination says, and call ``on_end`` once if it ends.

        ``on_early`` is called after each time that it says something. Both are called in the hub and must not block.
        """
        self.was_warm = True
        self.may_be_stale = self.state is State.READY
        self._on_end, self._on_early = on_end, on_early
        self.stream.watch(self.look)
        self.look()

    def unwatch(self) -> None:
        if self._on_end is not None:
            self._on_end, self._on_early = None, _ignore
            self.stream.unwatch()

    def lease(self) -> None:
        """Hand the tunnel to a session."""
        self.unwatch()
        self.state = advance(self.state, State.ACTIVE)
        tcp.limit_silence(self.stream.sock, on=False)

    def close(self, reason: Reason) -> None:
        """End the tunnel at once. Does nothing the second time."""
        if self.state is State.CLOSED:
            return
        self.unwatch()
        self.state = advance(self.state, State.CLOSED)
        self.reason = reason
        if self._stream is not None:
            self._stream.close()

    def finish(self) -> None:
        """End the tunnel in order: what was sent still reaches the destination.

        Blocks, at most GOODBYE_TIMEOUT_S after the gateway has taken the last bytes, or HTTP2_GOODBYE_TIMEOUT_S.
        """
        patience_s = HTTP2_GOODBYE_TIMEOUT_S if self.stream.carries_half_close else GOODBYE_TIMEOUT_S
        try:
            self.stream.send_eof()
            linger(self.stream, patience_s, until_eof=True)
        except StreamLost:
            pass  # the gateway has ended it already
        finally:
            self.close(Reason.FINISHED)

    def look_again(self) -> None:
        """``look``, but cheaper where nothing has come since the hub did. Does not block."""
        if self._on_end is not None and self.stream.has_news():
            self.look()

    def look(self) -> None:
        """Take notice of what has arrived while nobody has leased the tunnel. Does not block."""
        while self._on_end is not None and self._look_once():
            pass

    def _look_once(self) -> bool:
        """Whether there may be more: what is read over HTTP/2 is not all the tunnel's."""
        room = MAX_EARLY_BYTES - len(self.early) if self.state is State.READY else 1
        if room <= 0:
            return False
        buffer = bytearray(room)
        try:
            count = self.stream.recv_into(memoryview(buffer))
        except StreamLost:
            count = 0
        if count is None:
            return False
        if count == 0 or self.state is State.SECURED:  # before the CONNECT a gateway has nothing to say but good-bye
            self._ended()
            return False
        self.early += buffer[:count]
        if len(self.early) >= MAX_EARLY_BYTES:
            self.stream.unwatch()
        self._on_early(self)
        return True

    def _ended(self) -> None:
        on_end = self._on_end
        self.unwatch()
        if on_end is not None:
            on_end(self)
