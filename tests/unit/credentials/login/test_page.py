"""The page at the end of a login."""

from __future__ import annotations

import base64
import hashlib
import re

from pomagent.credentials.login import page


def test_the_page_removes_the_token_from_the_address_bar():
    assert 'history.replaceState(null, "", "/")' in page.SIGNED_IN


def test_the_page_loads_nothing_and_runs_only_its_own_script():
    policy = page.HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.SIGNED_IN, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert re.findall(r'(?:src|href)="([^"]*)"', page.SIGNED_IN) == ["data:,"]


def test_the_page_has_a_light_and_a_dark_scheme():
    assert "color-scheme: light dark" in page.SIGNED_IN
    assert "prefers-color-scheme: dark" in page.SIGNED_IN


def test_the_page_is_not_cached_and_sends_no_referrer():
    assert (page.HEADERS["Cache-Control"], page.HEADERS["Referrer-Policy"]) == ("no-store", "no-referrer")
