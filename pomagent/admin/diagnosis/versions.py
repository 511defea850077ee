"""Collects the versions of everything that this process runs on."""

from __future__ import annotations

import platform
import ssl
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from typing import Final

from pomagent import __version__

_PREFIXES: Final = (
    "POMAGENT_", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_", "NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_",
    "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "JOURNAL_STREAM", "GEVENT", "PYTHON",
)  # fmt: skip
"""Prefixes of the environment variables that are listed by name."""


def versions(environ: Mapping[str, str]) -> dict[str, object]:
    """Return the versions, and the names, without values, of relevant variables. Blocks: reads package metadata."""
    return {
        "pomagent": __version__,
        "python": sys.version,
        "openssl": ssl.OPENSSL_VERSION,
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "system": _system(),
        "variables": sorted(name for name in environ if name.upper().startswith(_PREFIXES)),
        "libraries": dict(sorted({(each.name, each.version) for each in metadata.distributions() if each.name})),
    }


def _system() -> str:
    with suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    return ""
