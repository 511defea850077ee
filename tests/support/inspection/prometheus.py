"""A real Prometheus on loopback, which scrapes one agent."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.gateway.ports import LOOPBACK, unused_port
from tests.gateway.tether import tethered
from tests.gateway.waiting import scaled, wait_until
from tests.support.agent import processes

OFTEN = "250ms"
START_TIMEOUT_S = 60


class Prometheus:
    """A context manager for a Prometheus that scrapes and evaluates rules four times a second."""

    def __init__(self, directory: Path, agent_port: int, rules: str) -> None:
        program = shutil.which("prometheus")
        if program is None:
            pytest.skip("prometheus is not installed")
        self._port = unused_port()
        self._log = directory / "prometheus.log"
        (directory / "rules.yml").write_text(rules)
        scrape = {"job_name": "pomagent", "static_configs": [{"targets": [f"{LOOPBACK}:{agent_port}"]}]}
        settings = {
            "global": {"scrape_interval": OFTEN, "scrape_timeout": OFTEN, "evaluation_interval": OFTEN},
            "rule_files": ["rules.yml"],
            "scrape_configs": [scrape],
        }
        (directory / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
        with self._log.open("ab") as log:
            self._process = processes.Process(
                tethered(
                    program, f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'prometheus'}", f"--web.listen-address={LOOPBACK}:{self._port}",
                ),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(scaled(20))

    def alerts(self) -> dict[str, str]:
        """Return the state of each pending or firing alert by its name."""
        return {alert["labels"]["alertname"]: alert["state"] for alert in self._ask("/api/v1/alerts")["alerts"]}

    def value(self, query: str) -> float | None:
        """Return the value of the first series that a query finds, None if there is none."""
        found = self._ask(f"/api/v1/query?query={urllib.parse.quote(query)}")["result"]
        return float(found[0]["value"][1]) if found else None

    def wait_for(self, query: str, value: float) -> None:
        wait_until(lambda: self._knows(query, value), START_TIMEOUT_S, f"{query} to be {value}")

    def _knows(self, query: str, value: float) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            return self.value(query) == value
        except OSError:  # Prometheus is starting
            return False

    def _ask(self, target: str) -> Any:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self._port}{target}", timeout=scaled(10)) as answer:
            return json.load(answer)["data"]
