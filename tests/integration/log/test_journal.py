"""The journal's native protocol against a socket of the test; tests/booted has the real journal."""

import fcntl
import json
import os
import socket
import struct
import threading

import pytest

from pomagent.log import events
from pomagent.log.journal import JournalSocket, encode, journal_behind, leads_to_journal
from pomagent.log.logger import LogLevel, make_logger
from pomagent.log.writer import LogWriter
from tests.gateway.waiting import scaled, wait_until

MIB = 1024 * 1024
PATIENCE_S = 20


class Journal:
    """Listens as journald does and reads on request."""

    def __init__(self, directory):
        self.path = directory / "socket"
        self._socket = None
        self.stand_up()

    def stand_up(self):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(scaled(PATIENCE_S))
        self._socket.bind(str(self.path))

    def go(self):
        self._socket.close()
        self.path.unlink()

    def read(self):
        """The next entry as bytes."""
        data, handed, _, _ = socket.recv_fds(self._socket, 10 * MIB, 1)
        if not handed:
            return data
        assert data == b"", "an entry is in the datagram or in the memory, not in both"
        with os.fdopen(handed[0], "rb") as memory:
            assert fcntl.fcntl(memory, fcntl.F_GET_SEALS) == 15, "the journal takes sealed memory only"
            memory.seek(0)
            return memory.read()

    def entry(self):
        """The next entry as fields."""
        return decode(self.read())


def decode(data):
    fields = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, is_short, value = line.partition(b"=")
        if not is_short:
            (length,) = struct.unpack("<Q", data[:8])
            value, end, data = data[8 : 8 + length], data[8 + length : 9 + length], data[9 + length :]
            assert end == b"\n"
        assert name not in fields
        fields[name.decode()] = value.decode()
    return fields


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path)
    yield journal
    journal.go()


@pytest.fixture
def stderr(tmp_path, monkeypatch):
    """Returns a file that JOURNAL_STREAM names as the journal's."""
    with (tmp_path / "stderr").open("w+") as file:
        status = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        yield file


@pytest.fixture
def writer(journal, stderr):
    writer = LogWriter(stderr.fileno(), journal_behind(stderr.fileno(), os.environ, str(journal.path)), queue_lines=100)
    yield writer
    writer.close(0.05)


@pytest.fixture
def log(writer):
    return make_logger(writer, format="json", level=LogLevel("debug")).bind(route="redis")


def written(stderr):
    stderr.seek(0)
    return stderr.read().splitlines()


def test_an_entry_has_the_line_and_its_fields(log, journal):
    log.warning(events.SESSION_REFUSED, error="down", waited_ms=7, warm=True, user="", status=None, problems=["a", "b"])
    entry = journal.entry()
    line = json.loads(entry.pop("MESSAGE"))
    assert (line["event"], line["level"], line["route"], line["status"]) == (
        "session.refused",
        "warning",
        "redis",
        None,
    )
    assert entry == {
        "PRIORITY": "4", "SYSLOG_FACILITY": "3", "SYSLOG_IDENTIFIER": "pomagent", "POMAGENT_EVENT": "session.refused",
        "POMAGENT_ROUTE": "redis", "POMAGENT_ERROR": "down", "POMAGENT_WAITED_MS": "7", "POMAGENT_WARM": "true",
        "POMAGENT_PROBLEMS": '["a", "b"]',
    }  # fmt: skip


def test_entries_are_not_written_to_standard_error_too(log, journal, stderr):
    log.info(events.CONFIG_LOADED)
    journal.read()
    assert written(stderr) == []


@pytest.mark.parametrize("text", ["two\nlines", "\n", "a=b\n", "PRIORITY=0\n\nMESSAGE=forged"])
def test_a_value_of_several_lines_stays_one_value(log, journal, text):
    log.critical(events.GREENLET_CRASHED, exception=text)
    entry = journal.entry()
    assert (entry["POMAGENT_EXCEPTION"], entry["PRIORITY"]) == (text, "2")


def test_text_that_is_not_utf8_is_escaped(log, journal):
    log.info(events.CONFIG_LOADED, path="caf\udce9")
    assert journal.entry()["POMAGENT_PATH"] == "caf\\udce9"


@pytest.mark.parametrize("length", [100_000, 300_000, 5 * MIB])
def test_an_entry_of_any_size_arrives_whole(log, journal, length):
    """An entry of about 200 KB or more is sent as a file in memory."""
    log.error(events.CONFIG_REJECTED, problems="x" * length)
    assert journal.entry()["POMAGENT_PROBLEMS"] == "x" * length


def test_entries_keep_their_order_whatever_their_size(log, journal):
    for number in range(9):
        log.info(events.CONFIG_LOADED, routes=number, path="x" * (300_000 if number % 2 else 1))
    assert [journal.entry()["POMAGENT_ROUTES"] for _ in range(9)] == [str(number) for number in range(9)]


def test_without_a_journal_lines_go_to_standard_error_with_their_level(stderr, tmp_path):
    writer = LogWriter(stderr.fileno(), journal_behind(stderr.fileno(), os.environ, str(tmp_path / "nothing")))
    make_logger(writer, format="json", level=LogLevel()).error(events.CONFIG_REJECTED)
    assert writer.close(PATIENCE_S)
    assert written(stderr)[0].startswith('<3>{"event": "config.rejected"')


def test_while_the_journal_is_gone_lines_go_to_standard_error_and_afterwards_to_it_again(log, writer, journal, stderr):
    log.info(events.CONFIG_LOADED, routes=1)
    assert journal.entry()["POMAGENT_ROUTES"] == "1"
    journal.go()
    log.info(events.CONFIG_LOADED, routes=2)
    wait_until(lambda: written(stderr))
    journal.stand_up()
    log.info(events.CONFIG_LOADED, routes=3)
    assert journal.entry()["POMAGENT_ROUTES"] == "3"
    assert ['"routes": 2' in line for line in written(stderr)] == [True]
    assert writer.dropped == 0


def test_stuck_journal_loses_lines_with_a_count_and_never_blocks(log, writer, journal):
    for number in range(1000):
        log.info(events.CONFIG_LOADED, routes=number)
    lost = writer.dropped
    assert lost > 0
    told, numbers = 0, []
    while told + len(numbers) < 1000:
        entry = journal.entry()
        if entry["POMAGENT_EVENT"] == "log.dropped":
            told += int(entry["POMAGENT_COUNT"])
        else:
            numbers.append(int(entry["POMAGENT_ROUTES"]))
    assert told == lost
    assert numbers == sorted(numbers)


def test_the_end_waits_until_the_journal_has_read_the_last_entry(log, writer, journal):
    log.info(events.AGENT_STOPPED)
    ended = threading.Thread(target=writer.close, args=(scaled(PATIENCE_S),))
    ended.start()
    ended.join(0.2)
    assert ended.is_alive()
    journal.read()
    ended.join(scaled(PATIENCE_S))
    assert not ended.is_alive()


def test_a_journal_that_never_reads_does_not_hold_the_end(log, writer, journal):
    log.info(events.AGENT_STOPPED)
    writer.close(0.1)
    wait_until(lambda: not writer._thread.is_alive())


def test_only_what_the_journal_reads_is_the_journals(stderr, tmp_path, monkeypatch):
    assert leads_to_journal(stderr.fileno(), os.environ)
    with (tmp_path / "other").open("w") as other:
        assert not leads_to_journal(other.fileno(), os.environ)
    assert not leads_to_journal(stderr.fileno(), {})
    assert not leads_to_journal(-1, os.environ)


def test_entry_without_a_journal_is_an_error_at_once(tmp_path):
    with pytest.raises(OSError, match=str(tmp_path)):
        JournalSocket(str(tmp_path / "nothing")).send(encode({"MESSAGE": "lost"}))
