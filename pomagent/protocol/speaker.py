"""Decides which party wrote an answer: Pomerium, its Envoy, or something in front of both (wire contract §3). Pure.

Only Pomerium's own words are a verdict on a credential or a route. Balancers, firewalls and maintenance pages answer
with the same statuses.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from pomagent.protocol.connect import Answer
from pomagent.runtime.printable import printable

REDIRECTS = frozenset({301, 302, 303, 307, 308})
PAGES = "/.pomerium/"
"""Path of all pages that Pomerium itself serves on every name of a gateway."""
MAX_EVIDENCE_CHARACTERS = 100
"""Maximum characters of one header in a sentence: it comes from outside and ends up in a log line."""
_MARKS = {"cf-ray": "Cloudflare", "x-amz-cf-id": "CloudFront", "x-azure-ref": "Azure Front Door"}
"""Headers that only one vendor's edge sets."""
_DEEDS = {
    401: ("demands a login of its own", "let CONNECT pass there without one"),
    403: ("forbids the request", "allow CONNECT to the gateway there"),
    404: ("does not know the host", "does the gateway's URL lead to Pomerium?"),
    405: ("does not take CONNECT", "pass TCP through to the gateway"),
    407: ("is a proxy that demands a login", "set forward_proxy with its credentials, or exempt the gateway"),
    408: ("timed out on the request", "check its timeouts"),
    429: ("limits the rate of requests", "raise its limit"),
    495: ("demands a client certificate", "set client_cert_file and client_key_file, or exempt the gateway"),
    496: ("demands a client certificate", "set client_cert_file and client_key_file, or exempt the gateway"),
    501: ("does not implement CONNECT", "pass TCP through to the gateway"),
    502: ("cannot reach the gateway", "start the gateway, or mend the backends there"),
    503: ("is out of service or has no gateway to pass on to", "wait for a maintenance to end, or start the gateway"),
    504: ("gets no answer from the gateway", "check the gateway's load"),
}
"""What a status means if something in front of the gateway wrote it, and its remedy."""


def is_authorizers(answer: Answer) -> bool:
    """Return whether Pomerium itself wrote the answer: by its header, or by both fields of its JSON."""
    explained = answer.explained
    is_json = isinstance(explained.get("error"), str) and isinstance(explained.get("request_id"), str)
    return "x-pomerium-intercepted-response" in answer.headers or is_json


def demands_login(answer: Answer, asked_path: str = "") -> bool:
    """Return whether Pomerium rejects the credential, with a 401 or a redirect to one of its own pages.

    A redirect to ``asked_path`` repeats the request elsewhere. Balancers send those, Pomerium does not.
    """
    if answer.status == 401:
        return is_authorizers(answer)
    if answer.status not in REDIRECTS:
        return False
    path = _path(answer.headers.get("location", ""))
    return path.startswith(PAGES) and path != urlsplit(asked_path).path


def denies_route(answer: Answer) -> bool:
    """Return whether Pomerium's authorizer denies access."""
    return answer.status == 403 and is_authorizers(answer)


def is_foreign(answer: Answer, asked_path: str = "") -> bool:
    """Return whether something in front of the gateway answered, not Pomerium or its Envoy.

    Statuses that would be a verdict need proof that Pomerium wrote them. Others need proof that it did not.
    """
    if answer.status == 401 or answer.status in REDIRECTS:
        return not demands_login(answer, asked_path)
    if is_authorizers(answer):
        return False
    if answer.status == 403:
        return not (_is_envoys(answer) and not answer.body) and "upgrade_failed" not in answer.detail
    if "www-authenticate" in answer.headers or "proxy-authenticate" in answer.headers or _mark(answer):
        return True
    if _is_envoys(answer):
        return False
    return bool(answer.headers.get("server")) or answer.body.lstrip()[:1] == b"<"


def interference(answer: Answer) -> tuple[str, str]:
    """Return what something in front of the gateway did, and the remedy."""
    did, remedy = _deed(answer)
    return f"something in front of the gateway {did}", remedy


def evidence(answer: Answer) -> str:
    """Return the headers that identify what answered, without queries and passwords. Empty if there are none."""
    headers = answer.headers
    found = [_mark(answer), *(
        f"{name} {headers[name.lower()]}" for name in ("Server", "Via", "WWW-Authenticate", "Proxy-Authenticate")
        if headers.get(name.lower())
    )]  # fmt: skip
    return ", ".join(_clean(part) for part in found if part)


def _deed(answer: Answer) -> tuple[str, str]:
    if answer.status in REDIRECTS:
        location = _without_secrets(answer.headers.get("location", ""))
        if not location:
            return "redirects without a Location", "look for a maintenance, or pass TCP through to the gateway"
        return f"redirects to {location}", "wait for a maintenance to end, or mend the gateway's URL if it has moved"
    if answer.status in _DEEDS:
        return _DEEDS[answer.status]
    return "answered", "look for a balancer, firewall or proxy between this host and the gateway"


def _is_envoys(answer: Answer) -> bool:
    return answer.headers.get("server", "").strip().lower() == "envoy"


def _mark(answer: Answer) -> str:
    return next((name for header, name in _MARKS.items() if header in answer.headers), "")


def _path(url: str) -> str:
    try:
        return urlsplit(url.strip()).path
    except ValueError:
        return ""


def _without_secrets(url: str) -> str:
    """Return scheme, host and path of a URL. Its query and user may be secrets."""
    try:
        parts = urlsplit(url.strip())
        netloc = parts.netloc.rpartition("@")[2]
    except ValueError:
        return ""
    return _clean(parts._replace(netloc=netloc, query="", fragment="").geturl())


def _clean(text: str) -> str:
    return printable(text, MAX_EVIDENCE_CHARACTERS)
