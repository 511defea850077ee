"""The page that the browser shows at the end of a login. Pure."""

from __future__ import annotations

import base64
import hashlib

# The token is in the address bar, and on every screenshot, until this has run.
_SCRIPT = 'history.replaceState(null, "", "/");'
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2433; --dim: #5b6578; --card: #fff; --page: #f2f4f8; --good: #15803d; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ebf2; --dim: #9aa4b8; --card: #1b2130; --page: #10141d; --good: #4ade80; }
}
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--page); color: var(--ink);
  font: 17px/1.6 system-ui, sans-serif; }
main { background: var(--card); border-radius: 14px; padding: 2.2em 2.6em; margin: 1em; max-width: 26em;
  box-shadow: 0 1px 3px #0003; }
h1 { font-size: 1.35em; margin: 0 0 .5em; }
h1 span { color: var(--good); }
p { margin: .6em 0 0; }
p + p { color: var(--dim); font-size: .9em; }
"""


def _hashed(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'sha256-{_hashed(_SCRIPT)}'; style-src 'sha256-{_hashed(_STYLE)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}

SIGNED_IN_STATUS = "404 Not Found"
"""Status of the page, which keeps the token's address out of the visible history. Browsers show the page all the same.

Chromium hides the history entry of a 404. It does not hide that of a 200, whether replaced, redirected or neither.
"""
SIGNED_IN = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Signed in – pomagent</title>
<link rel="icon" href="data:,">
<script>{_SCRIPT}</script>
<style>{_STYLE}</style>
<main>
<h1><span aria-hidden="true">✓</span> You are signed in</h1>
<p>Close this tab and return to your terminal or application: pomagent continues by itself.</p>
<p>The token was removed from this page's address. To see your identity, run <code>pomagent whoami</code>.</p>
</main>
</html>
"""

NOT_THIS_LOGIN = "Start again with: pomagent login. This address does not belong to a login that is under way.\n"
"""Plain-text answer to every request without a token of this login."""
