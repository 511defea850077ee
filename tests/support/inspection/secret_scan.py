"""A plugin of pytest: no secret that the tests mint shows in anything that they print, log, start or report.

Searched are: reports with their tracebacks and captured output, what processes write and how they are started
(``processes``), the process list (``process_list``), and whatever a test helper hands to ``minted.search``, such as the
log of an agent in this process. A test that shows a secret fails, and its report is shown without it.
"""

import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.gateway import minted
from tests.support.agent import processes
from tests.support.inspection import process_list

Report = pytest.TestReport | pytest.CollectReport
Kind = TypeVar("Kind", pytest.TestReport, pytest.CollectReport)
_directory = tempfile.TemporaryDirectory(prefix="secret-scan-", ignore_cleanup_errors=True)


def pytest_configure() -> None:
    minted.share(Path(_directory.name, "minted"))
    sys.addaudithook(_search_arguments)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:  # not pytest_unconfigure, to which a worker of xdist never comes
    process_list.stop()
    _directory.cleanup()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    processes.search_written()
    return _without_secrets(report)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _without_secrets((yield))


def _search_arguments(event: str, arguments: tuple[object, ...]) -> None:
    """Whoever starts a process in this one: Python tells of it before it is done."""
    if event == "subprocess.Popen":
        process_list.watch()
        minted.search(" ".join(process_list.arguments_of(arguments[1])), "the arguments of a process")


def _without_secrets(report: Kind) -> Kind:
    shown = [report.nodeid, report.longreprtext, *(text for _, text in report.sections)]
    for text in shown:
        minted.search(text, f"the report of {report.nodeid}")
    if minted.is_in("\n".join(shown)):
        report.longrepr = minted.redacted(report.longreprtext)
        report.sections = [(title, minted.redacted(text)) for title, text in report.sections]
    if mistakes := minted.take_findings():
        _fail(report, mistakes)
    return report


def _fail(report: Report, mistakes: list[str]) -> None:
    told = "\n".join(["a secret is shown in:", *mistakes])
    report.longrepr = f"{report.longreprtext}\n{told}" if report.failed else told
    report.outcome = "failed"
    if hasattr(report, "wasxfail"):
        del report.wasxfail
