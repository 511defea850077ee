"""A pytest plugin that fails a test if a minted secret shows in anything that it prints, logs, starts or reports.

It searches reports with their tracebacks and captured output, the output and arguments of processes (``processes``),
the process list (``process_list``), and texts that test helpers pass to ``minted.search``, such as the log of an agent
in this process. The report of a failed test is redacted.
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
def pytest_sessionfinish() -> None:  # not pytest_unconfigure, which xdist does not call in workers
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
    """Search the arguments of a process that Python is about to start. An audit hook."""
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
    text = "\n".join(["a secret is shown in:", *mistakes])
    report.longrepr = f"{report.longreprtext}\n{text}" if report.failed else text
    report.outcome = "failed"
    if hasattr(report, "wasxfail"):
        del report.wasxfail
