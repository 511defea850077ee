"""Imports every module that the process may ever need, because an upgrade replaces or removes their files."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Final

import pomagent

NOT_NEEDED: Final = (
    "pomagent.cli", "pomagent.__main__", "pomagent.config.desktop", "pomagent.admin.control.client",
    "pomagent.credentials.login", "pomagent.sessions.stdio",
)  # fmt: skip
"""The commands, which run in processes of their own, and modules that only they use."""


def load_all() -> None:
    """Import every module of the agent with all that it imports. Blocks."""
    _load_all(pomagent.__path__, "pomagent.")


def _load_all(path: Iterable[str], prefix: str) -> None:
    for module in pkgutil.iter_modules(path, prefix):
        if not module.name.startswith(NOT_NEEDED):
            loaded = importlib.import_module(module.name)
            if module.ispkg:
                _load_all(loaded.__path__, f"{module.name}.")
