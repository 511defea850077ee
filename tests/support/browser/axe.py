"""Checks a page with axe-core for barriers to people with disabilities."""

import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.waiting import scaled
from tests.support.agent import processes
from tests.support.agent.agent_process import clean_environment
from tests.support.browser.web_page import WebPage

VERSION = "4.10.3"
PLACE = Path(sys.prefix) / "axe-core"
SCRIPT = PLACE / "node_modules/axe-core/axe.min.js"
QUIETLY = ("--no-audit", "--no-fund", "--ignore-scripts")
WORTH_A_FAILURE = ("serious", "critical")


def violations(page: WebPage) -> list[str]:
    """Return the serious violations, each with its place in the page."""
    page.run(f"{_script()};0")
    facts = "({id, impact, nodes}) => ({id, impact, at: nodes.map(({html}) => html)})"
    found: list[dict[str, Any]] = page.run(f"axe.run().then(({{violations}}) => violations.map({facts}))")
    return [f"{one['id']}: {one['at'][:3]}" for one in found if one["impact"] in WORTH_A_FAILURE]


@cache
def _script() -> str:
    """Return axe-core's source, which is installed into the virtual environment the first time. Blocks."""
    if not SCRIPT.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is not installed")
        PLACE.mkdir(exist_ok=True)
        command = [
            npm,
            "install",
            f"--prefix={PLACE}",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            f"axe-core@{VERSION}",
        ]
        processes.run(command, check=True, capture_output=True, timeout=scaled(120), env=clean_environment())
    return SCRIPT.read_text()
