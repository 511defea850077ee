"""Envoy's admin interface: is it serving, and what has it counted?"""

import http.client
import re
from pathlib import Path

TIMEOUT_S = 5


class Admin:
    """The admin interface of the Envoy that wrote this address file when it started."""

    def __init__(self, address_file: Path) -> None:
        self.address_file = address_file

    def forget(self) -> None:
        """Wait for the address of another start."""
        self.address_file.unlink(missing_ok=True)

    @property
    def is_live(self) -> bool:
        """Envoy has its whole configuration and listens."""
        try:
            return self._get("/ready").startswith("LIVE")
        except (OSError, http.client.HTTPException):  # not yet
            return False

    def stat(self, name: str) -> str:
        """The value of one statistic, or "" if it does not exist (yet)."""
        found = self._get(f"/stats?filter=^{re.escape(name)}$")
        return found.partition(": ")[2].strip().strip('"')

    def _get(self, path: str) -> str:
        host, _, port = self.address_file.read_text().strip().rpartition(":")
        connection = http.client.HTTPConnection(host, int(port or 0), timeout=TIMEOUT_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()
