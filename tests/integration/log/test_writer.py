"""The writer thread with real pipes and readers that are stuck, slow or gone."""

import fcntl
import json
import os
import socket
import threading
import time

import pytest

from pomagent.log import writer
from pomagent.log.logger import LogLevel, LogWriter, make_logger

PATIENCE_S = 20


class Pipe:
    """Standard error with a reader that reads on request."""

    def __init__(self, *, is_blocking=True, capacity=4096):
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, capacity)
        os.set_blocking(self.writer, is_blocking)
        self._rest = b""

    def read_lines(self, count):
        while self._rest.count(b"\n") < count:
            data = os.read(self.reader, 65536)
            assert data, "the writer closed the pipe"
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n", count)
        return [line.decode() for line in lines]

    def close(self):
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)

    def lose_reader(self):
        os.close(self.reader)
        self.reader = -1


@pytest.fixture(params=["blocking", "non-blocking"])
def pipe(request):
    pipe = Pipe(is_blocking=request.param == "blocking")
    yield pipe
    pipe.close()


FILLER = "x" * 4095


def stick(writer, pipe):
    """Fills the pipe and lets the writer's thread get stuck with one line, ``stuck``."""
    assert os.write(pipe.writer, f"{FILLER}\n".encode()) == 4096
    writer.write("stuck")
    wait_until(lambda: not writer._queue)


def wait_until(condition):
    while not condition():
        time.sleep(0.001)


def test_lines_arrive_in_order(pipe):
    writer = LogWriter(pipe.writer)
    for number in range(1000):
        writer.write(f"{number}")
    assert pipe.read_lines(1000) == [str(number) for number in range(1000)]
    assert writer.close(PATIENCE_S)


def test_lines_of_many_threads_arrive_whole(pipe):
    writer = LogWriter(pipe.writer)
    threads = [
        threading.Thread(target=lambda name=name: [writer.write(f"{name}{number}") for number in range(500)])
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    lines = pipe.read_lines(2000)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(lines) == sorted(f"{name}{number}" for name in "abcd" for number in range(500))
    assert writer.close(PATIENCE_S)


def test_a_sleeping_writer_wakes_for_every_line(pipe):
    writer = LogWriter(pipe.writer)
    for number in range(100):
        writer.write(str(number))
        assert pipe.read_lines(1) == [str(number)]
    assert writer.close(PATIENCE_S)


class Rest(threading.Event):
    """The writer's event, which reports that it is waited for."""

    has_begun = False

    def wait(self, timeout=None):
        self.has_begun = True
        return super().wait(timeout)


def test_lines_gather_while_the_writer_rests_and_close_ends_the_rest(monkeypatch):
    monkeypatch.setattr(writer, "REST_S", 600)
    reader, end = socket.socketpair(type=socket.SOCK_DGRAM)  # where each write is seen as one
    with reader, end:
        lines = LogWriter(end.fileno())
        lines._closing = rest = Rest()
        lines.write("first")
        assert reader.recv(100) == b"first\n"
        wait_until(lambda: rest.has_begun)
        for line in ("second", "third"):
            lines.write(line)
        assert lines.close(PATIENCE_S)
        assert reader.recv(100) == b"second\nthird\n"


def test_stuck_reader_loses_the_newest_lines_with_a_count(pipe):
    writer = LogWriter(pipe.writer, queue_lines=20)
    make_logger(writer, format="json", level=LogLevel())
    stick(writer, pipe)
    for number in range(25):
        writer.write(str(number))
    assert pipe.read_lines(2) == [FILLER, "stuck"]
    report = json.loads(pipe.read_lines(1)[0])
    assert (report["event"], report["count"]) == ("log.dropped", 5)
    assert pipe.read_lines(20) == [str(number) for number in range(20)]
    writer.write("after")
    assert pipe.read_lines(1) == ["after"]
    assert writer.close(PATIENCE_S)


@pytest.mark.parametrize(("lines", "dropped"), [(9, 0), (10, 0), (11, 1)])
def test_the_queue_is_bounded(pipe, lines, dropped):
    writer = LogWriter(pipe.writer, queue_lines=10)
    stick(writer, pipe)
    for _ in range(lines):
        writer.write("x")
    assert writer.dropped == dropped
    drain_and_close(writer, pipe)


def drain_and_close(writer, pipe):
    reader = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(pipe.reader, 65536), b"")])
    reader.start()
    writer.close(PATIENCE_S)
    os.close(pipe.writer)
    pipe.writer = -1
    reader.join(PATIENCE_S)


def test_close_writes_what_is_queued(pipe):
    writer = LogWriter(pipe.writer)
    for number in range(20):
        writer.write(str(number))
    assert writer.close(PATIENCE_S)
    assert pipe.read_lines(20) == [str(number) for number in range(20)]


def test_close_gives_up_on_a_stuck_reader():
    pipe = Pipe(is_blocking=False)
    writer = LogWriter(pipe.writer)
    stick(writer, pipe)
    assert not writer.close(0.01)
    wait_until(lambda: not writer._thread.is_alive())
    assert not writer.close(PATIENCE_S)
    assert writer.dropped == 1
    pipe.close()


def test_close_does_not_wait_for_a_blocking_write_that_hangs():
    pipe = Pipe()
    writer = LogWriter(pipe.writer)
    stick(writer, pipe)
    assert not writer.close(0.05)
    drain_and_close(writer, pipe)
    pipe.close()


def test_closing_twice_and_writing_afterwards_do_no_harm(pipe):
    writer = LogWriter(pipe.writer)
    writer.write("last")
    assert writer.close(PATIENCE_S)
    writer.write("too late")
    writer.close(PATIENCE_S)
    assert pipe.read_lines(1) == ["last"]
    assert writer.dropped == 1


def test_a_reader_that_is_gone_costs_lines_but_not_the_writer(pipe):
    pipe.lose_reader()
    writer = LogWriter(pipe.writer)
    writer.write("into the void")
    wait_until(lambda: writer.dropped)
    assert not writer.close(PATIENCE_S)
    assert writer.dropped == 1


def test_text_that_is_not_utf8_is_written_escaped(pipe):
    writer = LogWriter(pipe.writer)
    writer.write("caf\udce9 ü")
    assert pipe.read_lines(1) == ["caf\\udce9 ü"]
    assert writer.close(PATIENCE_S)
