"""Asks a gateway for a tunnel: the I/O of one CONNECT and its answer, over HTTP/1.1 or HTTP/2."""

from __future__ import annotations

from contextlib import suppress

from pomagent.errors import (
    GatewayMisbehaved,
    GatewayTimedOut,
    GatewayUnreachable,
    StreamBroken,
    StreamLost,
    StreamReset,
    TunnelError,
)
from pomagent.gateway.hop import certificate_wanted
from pomagent.protocol.connect import Answer, Exchange, MalformedAnswer, Request
from pomagent.protocol.http2.exchange import Http2Exchange
from pomagent.protocol.http2.frames import Code
from pomagent.protocol.tls_alerts import demands_certificate
from pomagent.runtime.deadline import Deadline
from pomagent.runtime.hub import give_way
from pomagent.transport.http2_stream import Http2Stream, TunnelStream

READ_BYTES = 16 * 1024


def ask(stream: TunnelStream, request: Request, gateway: str, timeout_s: float) -> Answer:
    """Send the CONNECT and return what the gateway answers. Blocks. Raises TunnelError."""
    asking = _Asking(stream, request.destination, gateway, Deadline(timeout_s))
    try:
        if isinstance(stream, Http2Stream):
            return asking.run(Http2Exchange(stream.connection, request.destination, request.headers))
        return asking.run(Exchange(request))
    except StreamLost as error:
        raise asking.failure(error) from error
    except MalformedAnswer as error:
        raise asking.misbehaved(
            f"not an HTTP answer ({error}); does the gateway's URL lead to Pomerium?"
        ) from error  # fmt: skip


class _Asking:
    """One CONNECT under way."""

    def __init__(self, stream: TunnelStream, destination: str, gateway: str, deadline: Deadline) -> None:
        self._stream = stream
        self._named = {"gateway": gateway, "destination": destination}
        self._deadline = deadline

    def run(self, exchange: Exchange | Http2Exchange) -> Answer:
        with suppress(StreamLost):  # its last words may be waiting, such as an alert or an early refusal (§3.2)
            self._send(exchange.request)
        return self._receive(exchange)

    def _send(self, request: bytes) -> None:
        view = memoryview(request)
        while view and (view := view[self._stream.send(view) :]):
            if not self._stream.wait_writable(self._deadline.remaining_s):
                raise self._timed_out()
        if not self._stream.flush(self._deadline.remaining_s):
            raise self._timed_out()

    def _receive(self, exchange: Exchange | Http2Exchange) -> Answer:
        buffer = memoryview(bytearray(READ_BYTES))
        while True:
            try:
                count = self._stream.recv_into(buffer)
            except StreamLost:
                if exchange.answer_so_far is None:
                    raise
                count = 0
            answer = exchange.receive(bytes(buffer[:count])) if count else exchange.complete
            if answer is not None:
                return answer
            if count == 0:
                return self._what_came(exchange, self._unreachable("closed by the gateway before it answered"))
            if self._deadline.is_over or (
                count is None and not self._stream.wait_readable(self._deadline.remaining_s)
            ):  # fmt: skip
                return self._what_came(exchange, self._timed_out())
            if count:
                give_way()  # a gateway that never comes to an end must not hold the hub

    @staticmethod
    def _what_came(exchange: Exchange | Http2Exchange, error: TunnelError) -> Answer:
        """The answer whose body is not complete; ``error`` if not even its head is."""
        answer = exchange.answer_so_far
        if answer is None:
            raise error
        return answer

    # --- what went wrong ------------------------------------------------------------------------------------------

    def failure(self, loss: StreamLost) -> TunnelError:
        """What it means that the stream was lost before the answer."""
        if demands_certificate(loss.alert):
            return certificate_wanted(str(loss), phase="connect", **self._named)
        if isinstance(loss, StreamBroken):
            return self.misbehaved(f'{loss}; set transport = "http1" in its table')
        if isinstance(loss, StreamReset) and loss.code == Code.HTTP_1_1_REQUIRED:
            return self.misbehaved(f'{loss}: it wants HTTP/1.1; set transport = "http1" in its table')
        return self._unreachable(f"connection lost before the answer ({loss})")

    def misbehaved(self, what: str) -> GatewayMisbehaved:
        return GatewayMisbehaved(what, phase="connect", **self._named)

    def _unreachable(self, what: str) -> GatewayUnreachable:
        return GatewayUnreachable(f"{what}; is the gateway restarting?", phase="connect", **self._named)

    def _timed_out(self) -> GatewayTimedOut:
        return GatewayTimedOut(
            f"no answer to the CONNECT within {self._deadline.budget_s:g} s; "
            "look at the gateway's load and connection limit",
            phase="connect", **self._named,
        )  # fmt: skip
