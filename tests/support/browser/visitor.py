"""A person with a browser: opens printed addresses and counts the browsers that were started."""

import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tests.conftest import wait_until
from tests.gateway.facade import Gateway
from tests.support.browser import fake_browser

SIGN_IN = re.compile(r"https://\S+/\.pomerium/sign_in\?\S+")


class Visitor:
    """Trusts the gateway's certificate. ``command`` runs the same browser in its own process."""

    def __init__(self, gateway: Gateway, directory: Path) -> None:
        self._ca_file = str(gateway.ca_file)
        self._record = directory / "browser.record"

    @property
    def command(self) -> str:
        return f"{sys.executable} {fake_browser.__file__} {self._record} {self._ca_file}"

    @property
    def starts(self) -> int:
        """How many browsers were opened."""
        return self._record.read_text().count("started") if self._record.exists() else 0

    def visit(self, url: str) -> list[int]:
        """Open an address, follow its redirects and return every status."""
        return fake_browser.visit(url, self._ca_file)

    def sign_in_elsewhere(self, url: str) -> str:
        """Sign in on another machine and return the loopback address at which that browser fails."""
        while True:
            _, location = fake_browser.get(url, self._ca_file)
            if urlsplit(location).hostname == "127.0.0.1":
                return location
            url = location


def printed_address(output: Path) -> str:
    """Wait for the sign-in page's address in the output and return it. Blocks."""
    found = wait_until(lambda: SIGN_IN.search(output.read_text()), what="a sign-in address")
    return found[0]
