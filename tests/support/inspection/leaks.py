"""Finds sockets, greenlets and threads that a test left behind in this process."""

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gevent

from tests.gateway.waiting import wait_until
from tests.support.inspection import process_list

LISTENING = "0A"


def open_sockets(pid: int | str = "self") -> set[str]:
    """Return the sockets of a process, named by their inodes."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # it is closed by now
            found.add(os.readlink(link))  # noqa: PTH115 - no path: "socket:[4711]"
    return {target for target in found if target.startswith("socket:")}


def tcp_table() -> dict[str, tuple[str, str, str]]:
    """Return local address, peer address and state, in hexadecimal, of every TCP socket by its inode's name."""
    rows = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
    ]
    return {f"socket:[{row[9]}]": (row[1], row[2], row[3]) for row in rows}


class Sockets:
    """The sockets that are open now. Connections that servers of the session accept later are no leaks.

    A test gateway of the whole session has servers in this process, and its Envoy connects to them at any time.
    """

    def __init__(self) -> None:
        table = tcp_table()
        self._known = open_sockets()
        self._served = {_port(table[each]) for each in self._known if each in table and table[each][2] == LISTENING}

    def left(self) -> set[str]:
        """Return the sockets opened since, each with its row in the kernel's table."""
        found = open_sockets() - self._known
        table = tcp_table() if found else {}
        return {
            f"{each} {table.get(each, '')}"
            for each in found
            if each not in table or _port(table[each]) not in self._served
        }


def _port(row: tuple[str, str, str]) -> str:
    return row[0].rpartition(":")[2]


def running_greenlets() -> set[str]:
    """Return the greenlets of this process that have not ended."""
    return {
        f"{item.name} {id(item)}" for item in gc.get_objects() if isinstance(item, gevent.Greenlet) and not item.ready()
    }


def threads() -> set[str]:
    """Return the threads of this process, except thread pools, which keep theirs, and the session's secret search."""
    names = {thread.name for thread in threading.enumerate() if "gevent" not in thread.name.lower()}
    return names - {process_list.NAME}


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Fail if more is open or running after the block than before. Connections that are closing may take a moment.

    The objects that the session has gathered are frozen meanwhile: collecting them for every test costs more than
    the tests.
    """
    gc.freeze()
    try:
        sockets, greenlets, names = Sockets(), running_greenlets(), threads()
        yield

        def left() -> list[set[str]]:
            gc.collect()
            return [sockets.left(), running_greenlets() - greenlets, threads() - names]

        try:
            wait_until(lambda: not any(left()), 20, "nothing left behind")
        except AssertionError as error:
            raise AssertionError(f"left behind: {left()}") from error
    finally:
        gc.unfreeze()
