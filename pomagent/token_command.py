"""Tokens that a command prints, such as ``az account get-access-token``. Blocks: not for the hub."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from pydantic import SecretStr

from pomagent.config.secrets import check_token
from pomagent.errors import CredentialError
from pomagent.settings import Credential

MAX_SAID_CHARACTERS = 500
"""Of a command's standard error in one log line."""
MAX_PRINTED_BYTES = 64 * 1024
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
        out, err = process.communicate(timeout=credential.command_timeout_s)
    except subprocess.TimeoutExpired as error:
        with suppress(ProcessLookupError, PermissionError):  # the latter after sudo: it is another user's by now
            os.killpg(process.pid, signal.SIGKILL)  # and whatever it has started
        raise CredentialError(
            f"{name} printed no token within {credential.command_timeout_s:g} s; raise command_timeout_s, or mend it"
        ) from error
    finally:
        _end(process)
    said = _said(err, out)
    if process.returncode:
        raise CredentialError(f"{name} failed with exit code {process.returncode}{f': {said}' if said else ''}")
    if len(out) > MAX_PRINTED_BYTES:
        raise CredentialError(f"{name} printed more than {MAX_PRINTED_BYTES} bytes; expected one token")
    return Printed(check_token(out.decode(errors="replace").strip(), f"the output of {name}"), said)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing behind: neither the process, unless we may not end it, nor its pipes."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_TIMEOUT_S)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _said(err: bytes, out: bytes) -> str:
    """Standard error in one line, with whatever was also printed as the token blotted out."""
    text = err.decode(errors="replace")
    for word in out.decode(errors="replace").split():
        if len(word) >= 8:
            text = text.replace(word, "**********")
    return " ".join(text.split())[:MAX_SAID_CHARACTERS]
