"""Requests pages of a status server, as a probe does, and searches every answer for secrets."""

import http.client
import re
from dataclasses import dataclass, field

from tests.gateway import minted
from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import scaled

SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: dict[str, str] = field(default_factory=dict)

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of a sample, None if there is no such sample."""
        for found, shown, value in SAMPLE.findall(self.text):
            if found == name and dict(re.findall(r'(\w+)="([^"]*)"', shown)) == labels:
                return float(value)
        return None


def ask(port: int, target: str, method: str = "GET", host: str = "") -> Answer:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=scaled(20))
    try:
        connection.request(method, target, headers={"Host": host} if host else {})
        response = connection.getresponse()
        text = response.read().decode()
        minted.search(text, f"{method} {target} of the status server")
        return Answer(response.status, text, {name.lower(): value for name, value in response.getheaders()})
    finally:
        connection.close()
