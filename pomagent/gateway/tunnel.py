"""One CONNECT tunnel from dial to close. It serves one session and is not reused."""

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
"""Maximum bytes of a greeting that a waiting tunnel reads. The rest stays in the kernel's buffer."""
GOODBYE_TIMEOUT_S = 2.0
"""Maximum seconds to wait for the gateway's end, or its next read, after the last bytes were sent. Closing earlier
could destroy bytes that the gateway has not forwarded yet."""
HTTP2_GOODBYE_TIMEOUT_S = 10.0
"""The same limit over HTTP/2, where the end comes from the destination, after it has read the gateway's buffer."""


@dataclass(frozen=True, slots=True)
class Presented:
    """The credential that a gateway accepted for a tunnel."""

    gateway: Gateway
    credential: Credential
    token: SecretStr


def _ignore(_: object) -> None:
    """Ignore early bytes."""


class Tunnel:
    """A connection to the gateway in one of the states of ``protocol.lifecycle``."""

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
        """The credential sent with the CONNECT. None without one."""
        self.reason: Reason | None = None
        """Why the tunnel was closed. None while it is open."""
        self.early = bytearray()
        """Bytes that the destination sent before a session leased the tunnel."""
        self.was_warm = False
        """Whether the tunnel waited in a pool before its lease, with or without its CONNECT."""
        self.may_be_stale = False
        """Whether the tunnel waited with its CONNECT accepted, so that it may have died unnoticed."""

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
        """Expiry of the gateway's certificate as an ISO 8601 time. None if it was not verified."""
        until = None if isinstance(self.stream, SocketStream) else self.stream.peer_certificate().get("notAfter")
        if not isinstance(until, str):
            return None
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(until), UTC).isoformat().replace("+00:00", "Z")

    @property
    def transport(self) -> Literal["http1", "http2"]:
        """Transport of a secured tunnel, which may be less than the gateway's table asks for."""
        return "http2" if isinstance(self.stream, Http2Stream) else "http1"

    @property
    def age_ms(self) -> int:
        return round((self._clock() - self._since) * 1000)

    @property
    def accepted_s(self) -> float:
        """Seconds since the gateway accepted the tunnel."""
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
        """Read early bytes while the tunnel waits, and call ``on_end`` once if it ends.

        ``on_early`` is called after each read. Both are called in the hub and must not block.
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
        """Hand the tunnel over to a session."""
        self.unwatch()
        self.state = advance(self.state, State.ACTIVE)
        tcp.limit_silence(self.stream.sock, on=False)

    def close(self, reason: Reason) -> None:
        """Close the tunnel at once. Further calls have no effect."""
        if self.state is State.CLOSED:
            return
        self.unwatch()
        self.state = advance(self.state, State.CLOSED)
        self.reason = reason
        if self._stream is not None:
            self._stream.close()

    def finish(self) -> None:
        """Close the tunnel after everything sent has reached the destination.

        Blocks, at most GOODBYE_TIMEOUT_S (HTTP2_GOODBYE_TIMEOUT_S) after the gateway has read the last bytes.
        """
        patience_s = HTTP2_GOODBYE_TIMEOUT_S if self.stream.carries_half_close else GOODBYE_TIMEOUT_S
        try:
            self.stream.send_eof()
            linger(self.stream, patience_s, until_eof=True)
        except StreamLost:
            pass  # the gateway has already closed it
        finally:
            self.close(Reason.FINISHED)

    def look_again(self) -> None:
        """Do as ``look``, but cheaply if nothing has arrived since the hub last looked. Does not block."""
        if self._on_end is not None and self.stream.has_news():
            self.look()

    def look(self) -> None:
        """Read bytes, or the end, that arrived while the tunnel waits. Does not block."""
        while self._on_end is not None and self._look_once():
            pass

    def _look_once(self) -> bool:
        """Read once, and return whether more may have arrived: HTTP/2 frames may carry none of the tunnel's bytes."""
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
        if count == 0 or self.state is State.SECURED:  # before the CONNECT, a gateway sends only its close
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
