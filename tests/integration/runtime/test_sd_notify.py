"""sd_notify against a real datagram socket in systemd's place."""

import errno
import os
import socket
from pathlib import Path

import pytest

from pomagent.runtime.sd_notify import STATUS_CHARACTERS, Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """The service manager's socket; ``name`` is its address in NOTIFY_SOCKET."""
    name = f"{tmp_path}/notify" if request.param == "path" else f"@pomagent-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.setblocking(False)
        yield manager, name


@pytest.fixture
def notifier(manager):
    notifier = Notifier({"NOTIFY_SOCKET": manager[1]})
    yield notifier
    notifier.close()


@pytest.mark.parametrize(
    ("send", "expected"),
    [
        (lambda n: n.ready("42 routes"), "READY=1\nSTATUS=42 routes"),
        (lambda n: n.ready(), "READY=1"),
        (lambda n: n.status("1 denied"), "STATUS=1 denied"),
        (lambda n: n.stopping("3 sessions left"), "STOPPING=1\nSTATUS=3 sessions left"),
        (lambda n: n.extend(5_000_000), "EXTEND_TIMEOUT_USEC=5000000"),
        (lambda n: n.watchdog(), "WATCHDOG=1"),
        (lambda n: n.status("a\nREADY=1\r\n b"), "STATUS=a READY=1 b"),
        (lambda n: n.status("zwölf … \udcff"), "STATUS=zwölf … ?"),
    ],
)
def test_each_call_is_one_message(manager, notifier, send, expected):
    assert send(notifier) is True
    assert manager[0].recv(4096).decode() == expected


@pytest.mark.parametrize("length", [STATUS_CHARACTERS - 1, STATUS_CHARACTERS, STATUS_CHARACTERS + 1])
def test_a_status_fits_into_what_systemd_accepts(manager, notifier, length):
    assert notifier.ready("\U0001f600" * length)
    message = manager[0].recv(65536)
    assert len(message) <= 4096
    assert message.decode() == "READY=1\nSTATUS=" + "\U0001f600" * min(length, STATUS_CHARACTERS)


def test_a_manager_that_does_not_read_never_blocks_and_is_reported(notifier):
    sent = 0
    while notifier.watchdog():
        sent += 1
    assert sent > 0
    assert notifier.watchdog() is False


def test_a_manager_that_is_gone_is_no_error(manager, notifier):
    manager[0].close()
    if not manager[1].startswith("@"):
        Path(manager[1]).unlink()
    assert notifier.ready("x") is False


def test_an_empty_status_is_not_sent(manager, notifier):
    assert notifier.status(" \n") is False
    with pytest.raises(BlockingIOError):
        manager[0].recv(10)


@pytest.mark.parametrize("name", [None, "", "vsock:2:1234", "relative/path"])
def test_without_a_manager_nothing_happens(name):
    notifier = Notifier({} if name is None else {"NOTIFY_SOCKET": name})
    assert notifier.ready("x") is False
    assert notifier.watchdog() is False
    notifier.close()


def test_without_a_descriptor_left_nothing_is_sent(manager, monkeypatch):
    def no_descriptor(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", no_descriptor)
        notifier = Notifier({"NOTIFY_SOCKET": manager[1]})
    assert notifier.ready("x") is False


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid() + 1)}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "me"}, None),
    ],
)
def test_the_watchdog_interval_is_half_of_what_is_allowed(environ, expected):
    assert Notifier(environ).watchdog_interval_s == expected
