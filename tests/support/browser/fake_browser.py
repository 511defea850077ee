"""A scripted browser: ``python fake_browser.py RECORD CA_FILE URL`` follows redirects to the end.

Names resolve to loopback. Each start appends a line to RECORD, and each answer its status.
"""

import http.client
import ssl
import sys
from pathlib import Path
from urllib.parse import urljoin, urlsplit

LOOPBACK = "127.0.0.1"
TIMEOUT_S = 20


def visit(url: str, ca_file: str) -> list[int]:
    """Follow redirects from the URL and return every status."""
    statuses = []
    while url:
        status, location = get(url, ca_file)
        statuses.append(status)
        url = urljoin(url, location) if location else ""
    return statuses


def get(url: str, ca_file: str) -> tuple[int, str]:
    """Return the status and the redirect's location, empty if there is none."""
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = _Https(parts.hostname or "", parts.port, timeout=TIMEOUT_S, context=_context(ca_file))
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers={"Accept": "text/html"})
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("location", "")
    finally:
        connection.close()


class _Https(http.client.HTTPSConnection):
    """Dials loopback for any name."""

    def connect(self) -> None:
        name, self.host = self.host, LOOPBACK
        try:
            http.client.HTTPConnection.connect(self)
        finally:
            self.host = name
        self.sock = self._context.wrap_socket(self.sock, server_hostname=name)  # type: ignore[attr-defined]


def _context(ca_file: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)


if __name__ == "__main__":
    record = Path(sys.argv[1])
    with record.open("a") as file:
        file.write("started\n")
    statuses = visit(sys.argv[3], sys.argv[2])
    with record.open("a") as file:
        file.write(f"{statuses}\n")
