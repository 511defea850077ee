"""Makes text of other programs safe for terminals, logs and pages."""

from __future__ import annotations


def printable(text: str, limit: int) -> str:
    """Return the first ``limit`` characters of a text without those that could steer a terminal or begin a line."""
    text = text[:limit]
    return text if text.isprintable() else "".join(character for character in text if character.isprintable())
