"""Runs the command of a credential, such as ``az account get-access-token``, for the token that it prints.

Everything here blocks: for threads, never for the hub.
"""

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

MAX_STDERR_CHARACTERS = 500
"""Maximum characters of a command's standard error in one log line."""
MAX_OUTPUT_BYTES = 64 * 1024
"""Maximum bytes of a command's output, as for a token in a file."""
READ_BYTES = 64 * 1024
REDACTED = "**********"
_LIKE_A_TOKEN = re.compile(r"eyJ[\w-]{8,}(\.[\w-]+)*|[\w+=-]{32,}")
"""A JWT, or a long word: a command that traces itself also prints the secrets that it authenticates itself with."""
END_TIMEOUT_S = 1.0
"""Maximum seconds to wait for the end of a killed process."""


@dataclass(frozen=True, slots=True)
class CommandOutput:
    """The output of one run of the command."""

    token: SecretStr
    stderr: str
    """Standard error in one line, with secrets redacted."""


def run_command(credential: Credential, environ: Mapping[str, str]) -> CommandOutput:
    """Run a command to its end, or kill it and its children at its timeout. Blocks. Raises CredentialError."""
    name = credential.command[0]
    try:
        process = subprocess.Popen(
            credential.command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise CredentialError(f"correct the credential's command: {name} cannot be run: {cause}") from error
    try:
        out, err = _read_output(process, credential)
    except CredentialError:
        with suppress(ProcessLookupError, PermissionError):  # not permitted after sudo
            os.killpg(process.pid, signal.SIGKILL)  # and its children
        raise
    finally:
        _clean_up(process)
    stderr = _redacted(err, out)
    if process.returncode:
        raise CredentialError(f"{name} failed with exit code {process.returncode}{f': {stderr}' if stderr else ''}")
    return CommandOutput(check_token(out.decode(errors="replace").strip(), f"the output of {name}"), stderr)


def _read_output(process: subprocess.Popen[bytes], credential: Credential) -> tuple[bytes, bytes]:
    """Return standard output and standard error, both bounded. Blocks. Raises CredentialError."""
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
                key.data.extend(data[: max(0, MAX_OUTPUT_BYTES + 1 - len(key.data))])
            if len(out) > MAX_OUTPUT_BYTES:
                raise CredentialError(
                    f"make {name} print one token only; it printed more than {MAX_OUTPUT_BYTES} bytes"
                )
    with suppress(subprocess.TimeoutExpired):
        process.wait(deadline.remaining_s)
    if process.returncode is None:
        within = f"{credential.command_timeout_s:g} s"
        raise CredentialError(f"repair {name}, or raise command_timeout_s; it printed no token within {within}")
    return bytes(out), bytes(err)


def _clean_up(process: subprocess.Popen[bytes]) -> None:
    """Reap the process, unless we may not kill it, and close its pipes."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_TIMEOUT_S)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _redacted(err: bytes, out: bytes) -> str:
    """Return standard error in one line. The token that was printed, and anything that looks like one, is redacted."""
    text = err.decode(errors="replace")
    for word in out.decode(errors="replace").split():
        if len(word) >= 8:
            text = text.replace(word, REDACTED)
    return " ".join(_LIKE_A_TOKEN.sub(REDACTED, text).split())[:MAX_STDERR_CHARACTERS]
