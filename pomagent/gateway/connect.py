"""Requests a tunnel from a gateway: the I/O of one CONNECT and its answer, over HTTP/1.1 or HTTP/2."""

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
from pomagent.gateway.hop import certificate_required
from pomagent.protocol.connect import Answer, ConnectRequest, Exchange, MalformedAnswer
from pomagent.protocol.http2.exchange import Http2Exchange
from pomagent.protocol.http2.frames import Code
from pomagent.protocol.tls_alerts import demands_certificate
from pomagent.runtime.deadline import Deadline
from pomagent.runtime.hub import give_way
from pomagent.transport.http2_stream import Http2Stream, TunnelStream

READ_BYTES = 16 * 1024


def request_tunnel(stream: TunnelStream, request: ConnectRequest, gateway: str, timeout_s: float) -> Answer:
    """Send the CONNECT and return the gateway's answer. Blocks. Raises TunnelError."""
    attempt = _Attempt(stream, request.destination, gateway, Deadline(timeout_s))
    try:
        if isinstance(stream, Http2Stream):
            return attempt.run(Http2Exchange(stream.connection, request.destination, request.headers))
        return attempt.run(Exchange(request))
    except StreamLost as error:
        raise attempt.failure(error) from error
    except MalformedAnswer as error:
        what = "the answer is not HTTP; does the gateway's URL lead to Pomerium?"
        raise attempt.misbehaved(what, str(error)) from error


class _Attempt:
    """One CONNECT in progress."""

    def __init__(self, stream: TunnelStream, destination: str, gateway: str, deadline: Deadline) -> None:
        self._stream = stream
        self._named = {"gateway": gateway, "destination": destination}
        self._deadline = deadline

    def run(self, exchange: Exchange | Http2Exchange) -> Answer:
        with suppress(StreamLost):  # an alert or an early refusal may still be readable (wire contract §3.2)
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
                closed = self._unreachable("the gateway closed the connection before it answered")
                return self._partial_answer(exchange, closed)
            if self._deadline.is_over or (
                count is None and not self._stream.wait_readable(self._deadline.remaining_s)
            ):  # fmt: skip
                return self._partial_answer(exchange, self._timed_out())
            if count:
                give_way()  # an endless answer must not occupy the hub

    @staticmethod
    def _partial_answer(exchange: Exchange | Http2Exchange, error: TunnelError) -> Answer:
        """Return the answer so far if its head is complete, or raise ``error``."""
        answer = exchange.answer_so_far
        if answer is None:
            raise error
        return answer

    # --- errors -------------------------------------------------------------------------------------------------------

    def failure(self, loss: StreamLost) -> TunnelError:
        """Return the error for a stream that was lost before the answer."""
        if demands_certificate(loss.alert):
            return certificate_required(str(loss), phase="connect", **self._named)
        if isinstance(loss, StreamBroken):
            return self.misbehaved(f'{loss}; set transport = "http1" for the gateway')
        if isinstance(loss, StreamReset) and loss.code == Code.HTTP_1_1_REQUIRED:
            return self.misbehaved('the gateway requires HTTP/1.1; set transport = "http1" for it', str(loss))
        return self._unreachable("the connection was lost before the gateway answered", str(loss))

    def misbehaved(self, what: str, detail: str = "") -> GatewayMisbehaved:
        return GatewayMisbehaved(what, phase="connect", detail=detail, **self._named)

    def _unreachable(self, what: str, detail: str = "") -> GatewayUnreachable:
        return GatewayUnreachable(f"{what}; is it restarting?", phase="connect", detail=detail, **self._named)

    def _timed_out(self) -> GatewayTimedOut:
        return GatewayTimedOut(
            f"no answer to the CONNECT within {self._deadline.budget_s:g} s; "
            "check the gateway's load and connection limit",
            phase="connect", **self._named,
        )  # fmt: skip
