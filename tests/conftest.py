"""Fixtures for every test, and the rule that a skipped test fails a CI run."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.gateway import ports
from tests.gateway.waiting import wait_until
from tests.support.agent import event_document
from tests.support.inspection import secret_scan

if TYPE_CHECKING:
    from tests.gateway.facade import Gateway
    from tests.support.agent.bastion import Bastion

__all__ = ["wait_until"]


@pytest.fixture(scope="session")
def shared_gateway() -> "Iterator[Gateway]":
    """One gateway for the whole session. Tests use ``gateway``, which resets it after each test."""
    from tests.gateway.facade import Gateway  # Envoy, gRPC and cryptography: unit tests need none of them

    with Gateway() as running:
        yield running


@pytest.fixture
def gateway(shared_gateway: "Gateway") -> "Iterator[Gateway]":
    """A shared gateway that is reset after the test. Tests may stop it, freeze it, or add routes under new names."""
    shared_gateway.recover()
    yield shared_gateway
    shared_gateway.recover()


@pytest.fixture
def own_gateway() -> "Iterator[Gateway]":
    """A gateway for one test, for changes that ``recover`` does not undo: its certificate, its built-in routes."""
    from tests.gateway.facade import Gateway

    with Gateway() as running:
        yield running


@pytest.fixture
def bastion(gateway: "Gateway", tmp_path: Path) -> "Iterator[Bastion]":
    """A bastion host for the shared gateway. Its agents are stopped and checked after the test."""
    from tests.support.agent.bastion import Bastion

    with Bastion(gateway, tmp_path) as here:
        yield here


@pytest.fixture(autouse=True)
def documented_events() -> Iterator[None]:
    """Fail the test if it logs a line that docs/events.md does not describe."""
    event_document.take_noted()
    yield
    assert event_document.take_noted() == []


@pytest.fixture
def unused_port() -> int:
    """A loopback port without a listener. ``tests.gateway.ports.unused_port()`` returns more."""
    return ports.unused_port()


def pytest_configure(config: pytest.Config) -> None:
    # No test judges by elapsed time.
    slow = [hypothesis.HealthCheck.too_slow]
    examples = int(os.environ.get("POMAGENT_TEST_EXAMPLES") or hypothesis.settings().max_examples)
    hypothesis.settings.register_profile("unhurried", max_examples=examples, deadline=None, suppress_health_check=slow)
    hypothesis.settings.load_profile("unhurried")
    config.pluginmanager.register(secret_scan, "secret-scan")
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        config.pluginmanager.register(NoSkips(), "no-skips")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures that tests recorded. No test fails because of them."""
    passed = terminalreporter.getreports("passed")
    measured = [
        (report.nodeid, *figure) for report in passed if report.when == "call" for figure in report.user_properties
    ]
    if measured:
        terminalreporter.section("measured")
        for node, name, value in measured:
            terminalreporter.write_line(f"{node}: {name}: {value}")


class NoSkips:
    """Fails the session if a test was skipped: in CI a skipped test does not count as passed."""

    def __init__(self) -> None:
        self._skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped.append(_describe(report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._skipped.append(_describe(report))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._skipped:
            terminalreporter.section("skipped, which fails the session because CI is set", red=True)
            for line in self._skipped:
                terminalreporter.write_line(line)


def _describe(report: pytest.TestReport | pytest.CollectReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    return f"{report.nodeid}: {reason}"
