"""Any path is read without waiting, and only regular files within the limit are accepted."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pomagent.runtime.files import FileError, read_file

LIMIT = 10
NOBODY = 65534


def _reason(path: Path, *, follow_links: bool = True) -> str:
    with pytest.raises(FileError) as refusal:
        read_file(path, limit=LIMIT, follow_links=follow_links)
    assert str(refusal.value) == f"{path} {refusal.value.reason}"
    return refusal.value.reason


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A file that even its owner must not read."""
    path = tmp_path / "private"
    path.write_bytes(b"x")
    path.chmod(0)
    return path


@pytest.fixture
def unprivileged(private: Path) -> Iterator[None]:  # made before the rights are given up
    """The effective user is subject to permissions, even if the tests run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    yield
    os.seteuid(user)


class TestContent:
    def test_the_whole_content_is_returned_with_mode_owner_and_time(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"a\0\xff\n")
        path.chmod(0o640)
        found = read_file(path, limit=LIMIT)
        status = path.stat()
        assert found.content == b"a\0\xff\n"
        assert (found.mode, found.owner, found.modified_ns) == (0o640, status.st_uid, status.st_mtime_ns)

    def test_a_link_leads_to_its_target(self, tmp_path: Path) -> None:
        (tmp_path / "target").write_bytes(b"x")
        (tmp_path / "link").symlink_to("target")
        assert read_file(tmp_path / "link", limit=LIMIT).content == b"x"

    def test_a_file_below_proc_is_read_although_its_size_is_0(self) -> None:
        assert read_file(Path("/proc/self/comm"), limit=100).content

    @pytest.mark.parametrize("size", [0, LIMIT - 1, LIMIT])
    def test_a_file_within_the_limit_is_accepted(self, size: int, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"x" * size)
        assert len(read_file(tmp_path / "file", limit=LIMIT).content) == size

    def test_no_descriptor_stays_open(self, tmp_path: Path) -> None:
        before = len(list(Path("/proc/self/fd").iterdir()))
        (tmp_path / "file").write_bytes(b"x" * (LIMIT + 1))
        _reason(tmp_path / "file")
        (tmp_path / "file").write_bytes(b"x")
        read_file(tmp_path / "file", limit=LIMIT)
        assert before == len(list(Path("/proc/self/fd").iterdir()))


class TestRefusal:
    def test_a_larger_file_is_refused_with_the_limit(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"x" * (LIMIT + 1))
        assert _reason(tmp_path / "file") == "is larger than 10 bytes"

    def test_a_pipe_is_refused_without_waiting_for_a_writer(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert _reason(tmp_path / "pipe") == "is not a regular file but a named pipe"

    def test_a_directory_is_refused(self, tmp_path: Path) -> None:
        assert _reason(tmp_path) == "is not a regular file but a directory"

    def test_a_device_without_end_is_refused(self) -> None:
        assert _reason(Path("/dev/zero")) == "is not a regular file but a device"

    def test_a_socket_is_refused(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "socket"))
            assert _reason(tmp_path / "socket") == "is not a regular file but a socket"

    def test_a_link_is_refused_where_links_are_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "target").write_bytes(b"x")
        (tmp_path / "link").symlink_to("target")
        assert _reason(tmp_path / "link", follow_links=False) == "is not a regular file but a symbolic link"

    @pytest.mark.usefixtures("unprivileged")
    def test_a_file_without_permission_is_refused_with_the_systems_reason(self, private: Path) -> None:
        assert _reason(private) == "cannot be read: Permission denied"

    def test_a_loop_of_links_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "loop").symlink_to("loop")
        assert _reason(tmp_path / "loop") == "cannot be read: Too many levels of symbolic links"

    def test_a_file_that_has_vanished_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"x")
        path.unlink()
        assert _reason(path) == "cannot be read: No such file or directory"

    def test_a_name_that_is_no_path_is_refused(self) -> None:
        assert _reason(Path("a\0b")) == "is not a path: it contains a NUL"
