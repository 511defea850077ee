"""Reads and checks tokens, at load and again while the agent runs."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from pomagent.errors import CredentialError
from pomagent.runtime.files import FileError, read_file
from pomagent.settings import Credential

MAX_TOKEN_BYTES = 64 * 1024
"""Maximum bytes of a token: half the size of the headers that an edge accepts."""
_OTHERS = stat.S_IROTH | stat.S_IWOTH
_JWT = re.compile(r"eyJ[\w-]*\.?")
_OPAQUE = re.compile(r"[\w+=-]{32,}")


def read_token(credential: Credential, environ: Mapping[str, str]) -> SecretStr:
    """Return a credential's token from its file or variable. Blocks. Raises CredentialError."""
    if credential.path:
        return check_token(read_secret_file(credential.path), str(credential.path))
    if credential.source == "env":
        return check_token(_variable(credential.variable, environ), f"the environment variable {credential.variable}")
    raise CredentialError(f"credential {credential.name} has no token to read: its source is {credential.source}")


def read_secret_file(path: Path) -> str:
    """Return the content of a file that only its owner and group can read, without surrounding blanks.

    Blocks. Raises CredentialError.
    """
    try:
        file = read_file(path, limit=MAX_TOKEN_BYTES)
    except FileError as error:
        raise CredentialError(str(error)) from None
    if file.mode & _OTHERS:
        raise CredentialError(
            f"{path} can be read or written by every user (mode {file.mode:04o}); expected 0640 or less"
        )
    try:
        return file.content.decode().strip()
    except UnicodeDecodeError:
        raise CredentialError(f"{path} is not a text file") from None


def looks_like_token(text: str) -> bool:
    """Return whether a text looks like a token that was pasted in place of a name or a path."""
    return bool(_JWT.match(text) or _OPAQUE.fullmatch(text))


def _variable(name: str, environ: Mapping[str, str]) -> str:
    if name not in environ:
        raise CredentialError(f"the environment variable {name} is not set")
    if len(environ[name]) > MAX_TOKEN_BYTES:
        raise CredentialError(f"the environment variable {name} is longer than {MAX_TOKEN_BYTES} bytes")
    return environ[name].strip()


def check_token(text: str, where: str) -> SecretStr:
    """Return a text as a token. Raises CredentialError, which begins with ``where``, if it cannot be one."""
    if not text:
        raise CredentialError(f"{where} is empty; expected one token")
    if any(character.isspace() for character in text):
        raise CredentialError(f"{where} holds more than one word; expected one token and nothing else")
    if not all("!" <= character <= "~" for character in text):
        raise CredentialError(f"{where} holds characters that no token has; expected printable ASCII")
    return SecretStr(text)
