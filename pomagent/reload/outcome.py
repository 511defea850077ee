"""The result of a reload: settings compared, and a bug on the way treated as a rejection."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import gevent

from pomagent.config.keys import RESTART
from pomagent.errors import ConfigError, Problem
from pomagent.reload.key_changes import Change, changes
from pomagent.reload.plan import Plan, diff
from pomagent.settings import Settings


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one reload, or of the preview of one."""

    result: Literal["applied", "unchanged", "rejected"]
    plan: Plan = field(default_factory=Plan)
    changes: tuple[Change, ...] = ()
    problems: tuple[Problem, ...] = ()
    at: float = field(default_factory=time.time)
    """Seconds since the epoch."""


class ReloadCrashed(ConfigError):
    """A bug ended a reload, which counts as a rejection: the settings stay, and the next edit is read afresh."""

    def __init__(self, path: Path, bug: Exception) -> None:
        self.bug = bug
        remedy = "report this bug of the agent with its traceback, greenlet.crashed in the log"
        super().__init__(
            [Problem(path, 0, "", f"{remedy}; until then restart to apply the file ({type(bug).__name__})")]
        )


def compare(running: Settings, settings: Settings) -> Outcome:
    """Return what a reload does if every address can be bound. Raises ConfigError for a change that needs a restart."""
    if settings.sha == running.sha:
        return Outcome("unchanged", plan=diff(running, settings))
    found = changes(running, settings)
    rejected = [
        settings.problem(
            change.key, f'"{change.after}" takes effect at a restart only; restart, or put "{change.before}" back'
        )
        for change in found
        if change.apply == RESTART
    ]
    if rejected:
        raise ConfigError(rejected, settings.watched)
    return Outcome("applied", plan=diff(running, settings), changes=found)


@contextmanager
def bugs_as_rejections(path: Path) -> Iterator[None]:
    """Raise ``ReloadCrashed`` in place of an error that is a bug."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as bug:
        raise ReloadCrashed(path, bug) from bug


def report_bug(error: ConfigError) -> None:
    """Log the traceback as ``greenlet.crashed`` if a bug caused the rejection."""
    if isinstance(error, ReloadCrashed):
        gevent.get_hub().handle_error(gevent.getcurrent(), type(error.bug), error.bug, error.bug.__traceback__)
