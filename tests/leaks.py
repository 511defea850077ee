"""What a test has left behind in this process: sockets, greenlets and threads."""

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gevent

from tests.gateway.waiting import wait_until


def open_sockets(pid: int | str = "self") -> set[str]:
    """The sockets of a process, each by its inode."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # it is closed by now
            found.add(os.readlink(link))  # noqa: PTH115 - no path: "socket:[4711]"
    return {target for target in found if target.startswith("socket:")}


def running_greenlets() -> set[str]:
    """The greenlets of this process that have not ended."""
    return {
        f"{item.name} {id(item)}" for item in gc.get_objects() if isinstance(item, gevent.Greenlet) and not item.ready()
    }


def threads() -> set[str]:
    """The threads of this process but those of pools, which keep them."""
    return {thread.name for thread in threading.enumerate() if "gevent" not in thread.name.lower()}


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Fails if there is more open or running afterwards than before; the end of a connection has a moment."""
    before = open_sockets(), running_greenlets(), threads()
    yield

    def left() -> list[set[str]]:
        gc.collect()
        return [now - then for now, then in zip((open_sockets(), running_greenlets(), threads()), before, strict=True)]

    try:
        wait_until(lambda: not any(left()), 20, "nothing left behind")
    except AssertionError as error:
        raise AssertionError(f"left behind: {left()}") from error
