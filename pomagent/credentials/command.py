"""Tokens that a command prints, such as ``az account get-access-token``. Blocks: not for the hub."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from pydantic import SecretStr

from pomagent.config.secrets import check_token
from pomagent.errors import CredentialError
from pomagent.runtime.deadline import Deadline
from pomagent.settings import Credential

MAX_SAID_CHARACTERS = 500
"""Of a command's standard error in one log line."""
MAX_PRINTED_BYTES = 64 * 1024
READ_BYTES = 64 * 1024
BLOT = "**********"
_LIKE_A_TOKEN = re.compile(r"eyJ[\w-]{8,}(\.[\w-]+)*|[\w+=-]{32,}")
"""A JWT, or anything that long without a blank: a traced command tells what it authenticates itself with, too."""
END_TIMEOUT_S = 1.0
"""For a process that was killed to be gone."""


@dataclass(frozen=True, slots=True)
class Printed:
    """What a run of the command brought."""

    token: SecretStr
    said: str
    """Its standard error, without the token."""


def run_command(credential: Credential, environ: Mapping[str, str]) -> Printed:
    """Run a command to its end, or kill it and its children at its timeout. Raises CredentialError."""
    name = credential.command[0]
    try:
        process = subprocess.Popen(
            credential.command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise CredentialError(f"{name} cannot be run: {getattr(error, 'strerror', None) or error}") from error
    try:
        out, err = _listen(process, credential)
    except CredentialError:
        with suppress(ProcessLookupError, PermissionError):  # the latter after sudo: it is another user's by now
            os.killpg(process.pid, signal.SIGKILL)  # and whatever it has started
        raise
    finally:
        _end(process)
    said = _said(err, out)
    if process.returncode:
        raise CredentialError(f"{name} failed with exit code {process.returncode}{f': {said}' if said else ''}")
    return Printed(check_token(out.decode(errors="replace").strip(), f"the output of {name}"), said)


def _listen(process: subprocess.Popen[bytes], credential: Credential) -> tuple[bytes, bytes]:
    """Standard output and error, no more of either than is of use. Blocks. Raises CredentialError."""
    name, deadline = credential.command[0], Deadline(credential.command_timeout_s)
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, out)
        selector.register(process.stderr, selectors.EVENT_READ, err)
        while selector.get_map() and not deadline.is_over:
            for key, _ in selector.select(deadline.remaining_s):
                data = os.read(key.fd, READ_BYTES)
                if not data:
                    selector.unregister(key.fileobj)
                key.data.extend(data[: max(0, MAX_PRINTED_BYTES + 1 - len(key.data))])
            if len(out) > MAX_PRINTED_BYTES:
                raise CredentialError(f"{name} printed more than {MAX_PRINTED_BYTES} bytes; expected one token")
    with suppress(subprocess.TimeoutExpired):
        process.wait(deadline.remaining_s)
    if process.returncode is None:
        within = f"{credential.command_timeout_s:g} s"
        raise CredentialError(f"{name} printed no token within {within}; raise command_timeout_s, or mend it")
    return bytes(out), bytes(err)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing behind: neither the process, unless we may not end it, nor its pipes."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_TIMEOUT_S)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _said(err: bytes, out: bytes) -> str:
    """Standard error in one line, with whatever was also printed as the token, or looks like one, blotted out."""
    text = err.decode(errors="replace")
    for word in out.decode(errors="replace").split():
        if len(word) >= 8:
            text = text.replace(word, BLOT)
    return " ".join(_LIKE_A_TOKEN.sub(BLOT, text).split())[:MAX_SAID_CHARACTERS]
