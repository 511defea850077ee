"""The status page: texts from the agent never become markup, and the policy allows the page's own parts."""

import base64
import hashlib
import re
from typing import Any

from pomagent.admin.status.page import headers, rendered

NASTY = "<script>alert(1)</script><!--script--><!--static-->&\"'"


def document(**changes: Any) -> dict[str, Any]:
    route = {
        "state": "down", "name": "redis", "listen": "127.0.0.1:6379", "destination": NASTY, "warm": 0, "target": 1,
        "sessions": 2, "reason": NASTY,
    }  # fmt: skip
    return {"version": "1", "generation": 3, "sessions": 2, "last_reload": None, "routes": [route], **changes}


def test_texts_from_the_agent_are_escaped() -> None:
    shown = rendered(document(last_reload={"problems": [NASTY]})).decode()
    assert shown.count("<script>") == 1
    assert shown.count("&lt;script&gt;alert(1)&lt;/script&gt;&lt;!--script--&gt;") == 3
    assert "<td>redis</td>" in shown
    assert "rejected" in shown.partition('<div id="app"')[0]


def test_every_part_is_filled_in_and_allowed_by_its_hash() -> None:
    shown, policy = rendered(document()).decode(), headers()["Content-Security-Policy"]
    assert "<!--" not in shown
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        (part,) = re.findall(f"<{tag}>(.*?)</{tag}>", shown, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in policy


def test_no_part_parses_text_as_markup_or_code() -> None:
    shown = rendered(document()).decode()
    ways = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", " style=")
    assert [way for way in ways if way in shown] == []
