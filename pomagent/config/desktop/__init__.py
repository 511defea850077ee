"""Converts an export of Pomerium Desktop to an ``agent.toml`` that ``load`` accepts, with comments on differences."""

from pomagent.config.desktop.export import MAX_EXPORT_BYTES, read_export
from pomagent.config.desktop.text import Imported, to_toml

__all__ = ["MAX_EXPORT_BYTES", "Imported", "read_export", "to_toml"]
