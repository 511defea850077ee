"""Renders the status page: one HTML document with its style and scripts, which fetches only JSON from the agent.

Without scripts it shows a table of the routes at the time of loading. Texts from the agent are escaped here, and the
scripts insert them only as text. The content security policy lets nothing else run or load.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

SCRIPTS = ("draw.js", "routes.js", "app.js")
STYLE_MARK, STATIC_MARK, SCRIPT_MARK = "<!--style-->", "<!--static-->", "<!--script-->"

COLUMNS = ("State", "Route", "Listens on", "Warm", "Sessions", "Reason")
WITHOUT_SCRIPTS = "Scripts are off: reload the page to update it."


@dataclass(frozen=True, slots=True)
class _Frame:
    """The parts of the page that never change."""

    before: str
    after: str
    policy: str


def rendered(document: dict[str, Any]) -> bytes:
    """Return the page for a status document. Takes milliseconds for 1,000 routes, so call it off the hub."""
    frame = _frame()
    return f"{frame.before}{_static(document)}{frame.after}".encode()


def headers() -> dict[str, str]:
    """Return the security headers of the page. Blocks on its files."""
    return {
        "Content-Security-Policy": _frame().policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
    }


@cache
def _frame() -> _Frame:
    """Read the assets once per process: after an update, the files on disk belong to the new version."""
    here = files("pomagent.admin.status").joinpath("assets")
    style = here.joinpath("style.css").read_text("utf-8")
    body = "\n".join(here.joinpath(name).read_text("utf-8") for name in SCRIPTS)
    script = f'"use strict";\n{{\n{body}\n}}\n'
    text = here.joinpath("index.html").read_text("utf-8")
    head, tail = text.split(STATIC_MARK)
    return _Frame(head.replace(STYLE_MARK, style), tail.replace(SCRIPT_MARK, script), _policy(style, script))


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _static(document: dict[str, Any]) -> str:
    sessions = f"{document['sessions']} session{'' if document['sessions'] == 1 else 's'}"
    summary = f"pomagent {document['version']}, generation {document['generation']}, {sessions}."
    problems = (document["last_reload"] or {}).get("problems", ())
    parts = [f'<div id="static"><p class="quiet">{escape(summary)} {WITHOUT_SCRIPTS}</p>']
    if problems:
        parts.append(f"<p>The last edit was rejected:</p><ul>{_each('li', problems)}</ul>")
    parts.append(f'<table class="routes"><thead><tr>{_each("th", COLUMNS)}</tr></thead><tbody>')
    parts += [f"<tr>{_each('td', _cells(route))}</tr>" for route in document["routes"]]
    parts.append("</tbody></table></div>")
    return "".join(parts)


def _each(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def _cells(route: dict[str, Any]) -> tuple[str, ...]:
    """Return a route's cells in the order of COLUMNS."""
    where = f"{route['listen']} → {route['destination']}"
    warm = f"{route['warm']} of {route['target']}"
    return route["state"], route["name"], where, warm, str(route["sessions"]), route["reason"]
