"""Fixtures that every test may use, and the rule that nothing is skipped in CI."""

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
    """One gateway for the whole session; use ``gateway``, which puts it right after each test."""
    from tests.gateway.facade import Gateway  # Envoy, gRPC and cryptography: unit tests need none of them

    with Gateway() as running:
        yield running


@pytest.fixture
def gateway(shared_gateway: "Gateway") -> "Iterator[Gateway]":
    """A well-behaved gateway, shared: stop it, freeze it, let its authorizer fail; add routes under new names."""
    shared_gateway.recover()
    yield shared_gateway
    shared_gateway.recover()


@pytest.fixture
def own_gateway() -> "Iterator[Gateway]":
    """A gateway of the test's own, for what ``recover`` does not undo: its certificate, its built-in routes."""
    from tests.gateway.facade import Gateway

    with Gateway() as running:
        yield running


@pytest.fixture
def bastion(gateway: "Gateway", tmp_path: Path) -> "Iterator[Bastion]":
    """A bastion host for the shared gateway; its agents are stopped, and looked at, after the test."""
    from tests.support.agent.bastion import Bastion

    with Bastion(gateway, tmp_path) as here:
        yield here


@pytest.fixture(autouse=True)
def documented_events() -> Iterator[None]:
    """Whatever is logged during the test is as docs/events.md says."""
    event_document.take_noted()
    yield
    assert event_document.take_noted() == []


@pytest.fixture
def unused_port() -> int:
    """A loopback port on which nothing listens; ``tests.gateway.ports.unused_port()`` gives more of them."""
    return ports.unused_port()


def pytest_configure(config: pytest.Config) -> None:
    # No test judges by the time that something takes.
    slow = [hypothesis.HealthCheck.too_slow]
    examples = int(os.environ.get("POMAGENT_TEST_EXAMPLES") or hypothesis.settings().max_examples)
    hypothesis.settings.register_profile("unhurried", max_examples=examples, deadline=None, suppress_health_check=slow)
    hypothesis.settings.load_profile("unhurried")
    config.pluginmanager.register(secret_scan, "secret-scan")
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        config.pluginmanager.register(NoSkips(), "no-skips")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have measured: for people, since no test fails for a time."""
    passed = terminalreporter.getreports("passed")
    measured = [
        (report.nodeid, *figure) for report in passed if report.when == "call" for figure in report.user_properties
    ]
    if measured:
        terminalreporter.section("measured")
        for node, name, value in measured:
            terminalreporter.write_line(f"{node}: {name}: {value}")


class NoSkips:
    """Makes the session fail if a test was skipped: in CI, what was not tested does not count as passed."""

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
