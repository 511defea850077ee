"""Connects at a steady pace: ``python -m tests.support.load.arrivals PORT PER_SECOND``

It runs in its own process: otherwise work of the tests would count as waiting. For each connection it prints a line
with its number, the milliseconds until the answer, and the error or nothing. It answers a line on standard input with
``come`` and the number of connections so far. At the end of standard input it finishes the open connections and exits.
"""

import os
import sys
import time
from contextlib import suppress

import gevent
from gevent import socket
from gevent.pool import Group

from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import scaled

PATIENCE_S = 20


def _ask(port: int, number: int) -> None:
    """Connect, send a line, expect the same line, and print the result. Blocks."""
    began = time.monotonic()
    error = ""
    try:
        with gevent.Timeout(scaled(PATIENCE_S), TimeoutError("no answer")):
            answer = _answer(port, question := b"%d\n" % number)
            if answer != question:
                error = f"answered {answer!r}"
    except OSError as failure:
        error = repr(failure)
    print(number, round((time.monotonic() - began) * 1000, 1), error, flush=True)


def _answer(port: int, question: bytes) -> bytes:
    with socket.create_connection((LOOPBACK, port)) as client:
        client.sendall(question)
        answer = b""
        while not answer.endswith(b"\n") and (more := client.recv(100)):
            answer += more
        return answer


def _read_input(within_s: float) -> bytes | None:
    """Return what standard input brings within this time: empty at its end, None if nothing came. Blocks."""
    with suppress(TimeoutError):
        socket.wait_read(sys.stdin.fileno(), within_s, TimeoutError())
        return os.read(sys.stdin.fileno(), 100)
    return None


def main(port: int, per_second: float) -> None:
    connections = Group()
    due, number = time.monotonic(), 0
    while (line := _read_input(max(0.001, due - time.monotonic()))) != b"":
        if line:
            print("come", number, flush=True)
        elif time.monotonic() >= due:
            connections.spawn(_ask, port, number)
            due, number = due + 1 / per_second, number + 1
    connections.join()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
