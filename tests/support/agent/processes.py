"""Starts every process of the tests and searches its output for secrets (``secret_scan``)."""

import os
import stat
import subprocess
from collections.abc import Iterator
from typing import Any

from tests.gateway import minted
from tests.support.inspection import process_list

CHUNK_BYTES = 1024 * 1024
LONGEST = 128
"""Maximum length of a secret, in characters."""

_followed: "list[tuple[Process, list[_Written]]]" = []


class Process(subprocess.Popen[Any]):
    """``subprocess.Popen`` that searches what the process writes to files and what the test reads from its pipes."""

    def __init__(self, args: Any, **options: Any) -> None:
        process_list.expect(options.get("env") or os.environ)
        self._title = f"the output of {' '.join(process_list.arguments_of(args))[:300]}"
        written = [_Written(*at) for at in {_place(options.get(name)) for name in ("stdout", "stderr")} if at]
        super().__init__(args, **options)
        self.stdout: Any = self.stdout and _Searched(self.stdout, self._title)
        self.stderr: Any = self.stderr and _Searched(self.stderr, self._title)
        _followed.append((self, written))

    @property
    def title(self) -> str:
        return self._title

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:  # noqa: A002 - its name
        try:
            written = super().communicate(input, timeout)
        except subprocess.TimeoutExpired as error:
            for part in (error.output, error.stderr):
                minted.search(_text(part), self._title)
            raise
        for part in written:
            minted.search(_text(part), self._title)
        return written


def run(
    args: Any, *, input: Any = None, capture_output: bool = False, timeout: float | None = None,  # noqa: A002 - as there
    check: bool = False, **options: Any,
) -> "subprocess.CompletedProcess[Any]":  # fmt: skip
    """Run a process to its end, as ``subprocess.run`` does. Blocks."""
    if input is not None:
        options["stdin"] = subprocess.PIPE
    if capture_output:
        options["stdout"] = options["stderr"] = subprocess.PIPE
    with Process(args, **options) as process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def search_written() -> None:
    """Search what all processes have written to files since the last call."""
    for process, files in list(_followed):
        has_ended = process.poll() is not None
        for file in files:
            file.search(process.title)
        if has_ended:
            _followed.remove((process, files))
            for file in files:
                file.close()


class _Written:
    """A file to which a process writes. It stays readable when it is renamed or removed."""

    def __init__(self, _device: int, _inode: int, descriptor: int) -> None:
        self._file = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        self._read = os.fstat(self._file).st_size
        self._last = ""

    def search(self, title: str) -> None:
        while data := os.pread(self._file, CHUNK_BYTES, self._read):
            self._read += len(data)
            text = _text(data)
            minted.search(self._last + text, title)
            self._last = text[-LONGEST:]  # a secret may span two chunks

    def close(self) -> None:
        os.close(self._file)


class _Searched:
    """A pipe from a process that searches everything that is read."""

    def __init__(self, pipe: Any, title: str) -> None:
        self._pipe = pipe
        self._title = title

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)

    def __iter__(self) -> Iterator[Any]:
        return map(self._search, self._pipe)

    def read(self, *size: int) -> Any:
        return self._search(self._pipe.read(*size))

    def readline(self) -> Any:
        return self._search(self._pipe.readline())

    def _search(self, data: Any) -> Any:
        minted.search(_text(data), self._title)
        return data


def _place(stream: Any) -> tuple[int, int, int] | None:
    """Return device, inode and descriptor of a stream if it is a file. Both output streams may be the same file."""
    if stream is None or (isinstance(stream, int) and stream < 0):
        return None
    descriptor = stream if isinstance(stream, int) else stream.fileno()
    status = os.fstat(descriptor)
    return (status.st_dev, status.st_ino, descriptor) if stat.S_ISREG(status.st_mode) else None


def _text(data: str | bytes | None) -> str:
    return data.decode("latin-1") if isinstance(data, bytes) else data or ""
