"""Everything that this process may ever import: an upgrade replaces the files while it runs, or removes them."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Final

import pomagent

NOT_NEEDED: Final = ("pomagent.cli", "pomagent.__main__")
"""Commands: each is a process of its own."""


def load_all() -> None:
    """Load every module of the agent now, and with them what they use."""
    for module in pkgutil.walk_packages(pomagent.__path__, "pomagent."):
        if not module.name.startswith(NOT_NEEDED):
            importlib.import_module(module.name)
