"""Connects at a steady pace: ``python -m tests.support.load.arrivals PORT PER_SECOND``

In a process of its own, or what the tests do meanwhile would look like a wait. A line says of each, as soon as it is
known, what became of it: its number, the milliseconds it waited, the error or nothing. A line on standard input is
answered by ``come`` and how many have come so far; at its end nobody else comes, and the last one is served.
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
    """One of them: a connection, a question, its answer."""
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


def _told(within_s: float) -> bytes | None:
    """What standard input says: nothing at its end, None if it is silent for so long."""
    with suppress(TimeoutError):
        socket.wait_read(sys.stdin.fileno(), within_s, TimeoutError())
        return os.read(sys.stdin.fileno(), 100)
    return None


def main(port: int, per_second: float) -> None:
    coming = Group()
    due, number = time.monotonic(), 0
    while (told := _told(max(0.001, due - time.monotonic()))) != b"":
        if told:
            print("come", number, flush=True)
        elif time.monotonic() >= due:
            coming.spawn(_ask, port, number)
            due, number = due + 1 / per_second, number + 1
    coming.join()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
