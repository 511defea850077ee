"""Negotiates with a forward proxy until it relays to the gateway: the I/O of ``protocol.forward_proxy``."""

from __future__ import annotations

from pomagent.errors import StreamLost
from pomagent.protocol.forward_proxy import Negotiation, ProxyFailures
from pomagent.runtime.deadline import Deadline
from pomagent.runtime.hub import give_way
from pomagent.transport.stream import SocketStream
from pomagent.transport.tls_stream import TlsStream

READ_BYTES = 4 * 1024


def carry_out(
    stream: SocketStream | TlsStream, negotiation: Negotiation, failures: ProxyFailures, deadline: Deadline
) -> None:
    """Exchange bytes until the negotiation is over. Blocks. Raises TunnelError."""
    buffer = memoryview(bytearray(READ_BYTES))
    try:
        while not negotiation.is_over:
            _send(stream, negotiation.pop_outgoing(), failures, deadline)
            count = stream.recv_into(buffer)
            if count is not None:
                negotiation.receive(bytes(buffer[:count]))
                give_way()  # an endless answer must not occupy the hub
            elif not stream.wait_readable(deadline.remaining_s):
                raise failures.opened_nothing(deadline.budget_s)
            if deadline.is_over and not negotiation.is_over:
                raise failures.opened_nothing(deadline.budget_s)
    except StreamLost as error:
        raise failures.broke_off(str(error)) from error


def _send(stream: SocketStream | TlsStream, data: bytes, failures: ProxyFailures, deadline: Deadline) -> None:
    view = memoryview(data)
    while view:
        view = view[stream.send(view) :]
        if view and not stream.wait_writable(deadline.remaining_s):
            raise failures.opened_nothing(deadline.budget_s)
    if not stream.flush(deadline.remaining_s):
        raise failures.opened_nothing(deadline.budget_s)
