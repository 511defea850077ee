"""The page that a login ends on."""

from __future__ import annotations

import base64
import hashlib
import re

from pomagent.credentials.login import page


def test_the_page_takes_the_token_out_of_the_address_bar():
    assert 'history.replaceState(null, "", "/")' in page.SIGNED_IN


def test_the_page_loads_nothing_and_runs_only_its_own():
    policy = page.HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.SIGNED_IN, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert re.findall(r'(?:src|href)="([^"]*)"', page.SIGNED_IN) == ["data:,"]


def test_the_page_knows_light_and_dark():
    assert "color-scheme: light dark" in page.SIGNED_IN
    assert "prefers-color-scheme: dark" in page.SIGNED_IN


def test_nothing_is_cached_and_no_address_passed_on():
    assert (page.HEADERS["Cache-Control"], page.HEADERS["Referrer-Policy"]) == ("no-store", "no-referrer")
