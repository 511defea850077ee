"""A change of the files leads to new settings, or to a list of problems and no change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gevent
import pytest

from pomagent.errors import ConfigError, Problem
from pomagent.log import events
from pomagent.reload import reloader as module
from pomagent.reload.plan import Plan
from pomagent.reload.reloader import Reloader
from pomagent.settings import AgentSettings, Gateway, HostPort, Route, Settings
from tests.conftest import wait_until
from tests.fakes.clock import FakeClock
from tests.fakes.greenlets import caught_crashes, settle
from tests.fakes.log import FakeLog

PATH = Path("/etc/pomagent/agent.toml")
ROUTE = Route(
    "redis", HostPort("127.0.0.1", 6379), HostPort("redis.example.com", 6379),
    Gateway("corp", HostPort("edge.example.com", 443)),
)  # fmt: skip
INCLUDED, TOKEN = Path("/etc/pomagent/routes.d"), Path("/etc/pomagent/token.jwt")
FIRST = Settings(PATH, routes=(ROUTE,), sha="first", watched=frozenset({PATH}))
SECOND = Settings(
    PATH, routes=(replace(ROUTE, pool_max=9),), sha="second", watched=frozenset({PATH, TOKEN}), patterns=("*.d",)
)

BUG = ZeroDivisionError("a bug")


def broken(*messages: str) -> ConfigError:
    problems = [Problem(PATH, line, "routes", message) for line, message in enumerate(messages, 1)]
    return ConfigError(problems, frozenset({PATH, INCLUDED}))


class Environment:
    """Stands in for the files, the agent, the watcher and the store."""

    def __init__(self) -> None:
        self.files: Settings | Exception = FIRST
        self.refusal: Exception | None = None
        """Raised by the agent instead of applying."""
        self.while_applying: Callable[[], None] = lambda: None
        self.looks = 0
        self.applied: list[Settings] = []
        self.plans: list[Plan] = []
        self.followed: list[tuple[frozenset[Path], tuple[str, ...]]] = []
        self.kept: list[Settings] = []
        self.recalled: Settings | None = None
        self.follow_bug: Exception | None = None
        self.save_bug: Exception | None = None

    def load(self) -> Settings:
        self.looks += 1
        if isinstance(self.files, Exception):
            raise self.files
        return self.files

    def apply(self, settings: Settings, plan: Plan) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.while_applying()
        self.applied.append(settings)
        self.plans.append(plan)

    def follow(self, paths: frozenset[Path], patterns: tuple[str, ...]) -> None:
        if self.follow_bug is not None:
            raise self.follow_bug
        self.followed.append((paths, patterns))

    # The store of the last good settings, in a thread.

    def save(self, settings: Settings) -> None:
        if self.save_bug is not None:
            raise self.save_bug
        self.kept.append(settings)

    def restore(self) -> Settings | None:
        return self.recalled


@pytest.fixture
def around() -> Environment:
    return Environment()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def fake_log() -> FakeLog:
    return FakeLog()


@pytest.fixture
def reloader(around, clock, fake_log, monkeypatch) -> Iterator[Reloader]:
    """A reloader that has not started."""
    monkeypatch.setattr(module, "QUIET_S", 0.002)
    reloader = Reloader(around.load, around.apply, around.follow, around, fake_log.log, clock)
    yield reloader
    reloader._threads._pool.kill()


@pytest.fixture
def started(reloader, around, fake_log) -> Reloader:
    """A reloader that has applied FIRST, with all records of that cleared."""
    reloader.start()
    around.looks = 0
    around.applied.clear()
    around.followed.clear()
    around.kept.clear()
    fake_log.lines.clear()
    return reloader


@pytest.fixture
def running(started) -> Iterator[Reloader]:
    greenlet = gevent.spawn(started.run)
    settle()
    yield started
    assert not greenlet.ready(), "the loop has ended"
    greenlet.kill()


class TestStart:
    def test_first_settings_are_loaded_applied_and_followed(self, reloader, around, fake_log):
        assert reloader.start() is FIRST
        assert reloader.current is FIRST
        assert (around.applied, around.kept) == ([FIRST], [FIRST])
        assert around.followed == [(FIRST.watched, FIRST.patterns)]
        assert fake_log.events == [events.CONFIG_LOADED]
        assert (fake_log.lines[0]["sha"], fake_log.lines[0]["routes"]) == ("first", 1)

    def test_invalid_file_raises_and_logs_nothing(self, reloader, around, fake_log):
        around.files = broken("no")
        with pytest.raises(ConfigError):
            reloader.start()
        assert reloader.current is None
        assert (around.applied, around.kept, fake_log.events) == ([], [], [])

    def test_last_good_settings_are_used_with_boot_from_last_good(self, reloader, around, fake_log):
        around.files = broken("no")
        around.recalled = replace(FIRST, agent=AgentSettings(boot_from_last_good=True))
        assert reloader.start() is around.recalled
        assert around.applied == [around.recalled]
        assert around.followed == [(FIRST.watched | {INCLUDED}, FIRST.patterns)]
        assert fake_log.events == [events.CONFIG_REJECTED, events.CONFIG_LOADED]
        assert reloader.last is not None
        assert reloader.last.result == "rejected"

    def test_last_good_settings_are_not_used_without_boot_from_last_good(self, reloader, around):
        around.files = broken("no")
        around.recalled = FIRST
        with pytest.raises(ConfigError):
            reloader.start()
        assert around.applied == []

    def test_warnings_are_logged_one_by_one(self, reloader, around, fake_log):
        around.files = replace(FIRST, warnings=("one", "two"))
        reloader.start()
        assert [line["warning"] for line in fake_log.named(events.CONFIG_WARNED)] == ["one", "two"]


class TestReload:
    def test_changed_files_are_applied_and_followed(self, started, around, fake_log):
        around.files = SECOND
        outcome = started.reload()
        assert outcome.result == "applied"
        assert started.current is SECOND
        assert started.last is outcome
        assert (around.applied, around.kept) == ([SECOND], [SECOND])
        assert around.plans[-1] is outcome.plan
        assert around.followed == [(SECOND.watched, SECOND.patterns)]
        [line] = fake_log.lines
        counts = {name: line[name] for name in ("started", "replaced", "stopped", "kept")}
        assert (line["event"], line["sha"]) == (events.CONFIG_APPLIED, "second")
        assert counts == {"started": 0, "replaced": 1, "stopped": 0, "kept": 0}

    def test_unchanged_bytes_change_nothing(self, started, around, fake_log):
        around.files = replace(FIRST)
        assert started.reload().result == "unchanged"
        assert started.current is FIRST
        assert (around.applied, around.followed, around.kept) == ([], [], [])
        assert fake_log.events == [events.CONFIG_UNCHANGED]

    def test_new_directory_without_files_is_watched(self, started, around):
        around.files = replace(FIRST, watched=FIRST.watched | {Path("/etc/pomagent/sites/paris")})
        assert started.reload().result == "unchanged"
        assert Path("/etc/pomagent/sites/paris") in around.followed[-1][0]

    def test_invalid_file_changes_nothing_and_every_problem_is_logged(self, started, around, fake_log):
        around.files = broken("no port", "no host")
        outcome = started.reload()
        assert outcome.result == "rejected"
        assert started.current is FIRST
        assert (around.applied, around.kept) == ([], [])
        [line] = fake_log.named(events.CONFIG_REJECTED)
        assert line["level"] == "error"
        assert line["problems"] == [f"{PATH}:1: routes: no port", f"{PATH}:2: routes: no host"]

    def test_settings_that_cannot_be_put_to_work_change_nothing(self, started, around, fake_log):
        around.files = SECOND
        around.refusal = broken("cannot listen on 127.0.0.1:1")
        assert started.reload().result == "rejected"
        assert started.current is FIRST
        assert around.kept == []
        assert fake_log.events == [events.CONFIG_REJECTED]

    def test_files_that_a_rejected_file_names_are_watched_beside_the_running_ones(self, started, around):
        """The error may be corrected in a file that only the rejected one includes."""
        around.files = broken("no")
        started.reload()
        assert around.followed == [(FIRST.watched | {INCLUDED}, FIRST.patterns)]

    @pytest.mark.parametrize("files", [SECOND, replace(FIRST), broken("no")])
    def test_status_shows_the_outcome_before_it_is_logged(self, around, files):
        """An operator may read the log line and ask for the status at once."""

        class Asking(FakeLog):
            def write(self, line: str, fields: bytes = b"") -> None:
                super().write(line, fields)
                known.append((dict(reloader.results), reloader.last))

        known: list[object] = []
        reloader = Reloader(around.load, around.apply, around.follow, around, Asking().log)
        reloader.start()
        around.files = files
        outcome = reloader.reload()
        reloader._threads._pool.kill()
        assert known[1:] == [({outcome.result: 1}, None if outcome.result == "unchanged" else outcome)]

    def test_files_that_only_rejected_settings_name_are_watched(self, started, around):
        around.files, around.refusal = SECOND, broken("cannot listen on 127.0.0.1:1")
        started.reload()
        assert TOKEN in around.followed[-1][0]
        assert "*.d" in around.followed[-1][1]

    def test_after_a_rejection_the_mended_file_is_applied(self, started, around):
        around.files = broken("no")
        started.reload()
        around.files = SECOND
        assert started.reload().result == "applied"

    def test_change_that_needs_a_restart_is_rejected(self, started, around):
        around.files = replace(SECOND, agent=AgentSettings(workers=2))
        outcome = started.reload()
        assert outcome.result == "rejected"
        assert [problem.key for problem in outcome.problems] == ["agent.workers"]
        assert around.applied == []

    def test_warnings_are_logged_with_new_settings_only(self, started, around, fake_log):
        around.files = replace(SECOND, warnings=("one",))
        started.reload()
        started.reload()
        assert len(fake_log.named(events.CONFIG_WARNED)) == 1

    def test_concurrent_reloads_run_one_after_another(self, started, around):
        around.files = SECOND
        around.while_applying = lambda: gevent.sleep(0)
        outcomes = [gevent.spawn(started.reload) for _ in range(2)]
        gevent.joinall(outcomes)
        assert [greenlet.value.result for greenlet in outcomes] == ["applied", "unchanged"]
        assert around.applied == [SECOND]


class TestLogOfRejections:
    def reject(self, started: Reloader, around: Environment, *messages: str) -> None:
        around.files = broken(*messages)
        started.reload(is_requested=False)

    def test_same_problems_of_a_poll_are_not_logged_again(self, started, around, fake_log):
        self.reject(started, around, "no")
        self.reject(started, around, "no")
        assert len(fake_log.named(events.CONFIG_REJECTED)) == 1

    def test_other_problems_are_logged(self, started, around, fake_log):
        self.reject(started, around, "no")
        self.reject(started, around, "no", "neither")
        assert len(fake_log.named(events.CONFIG_REJECTED)) == 2

    @pytest.mark.parametrize("good", [FIRST, SECOND], ids=["put back", "mended"])
    def test_same_problems_are_logged_again_after_a_valid_file(self, started, around, fake_log, good):
        self.reject(started, around, "no")
        around.files = good
        started.reload(is_requested=False)
        self.reject(started, around, "no")
        assert len(fake_log.named(events.CONFIG_REJECTED)) == 2

    def test_requested_reload_always_logs_the_problems(self, started, around, fake_log):
        self.reject(started, around, "no")
        started.reload(is_requested=True)
        assert len(fake_log.named(events.CONFIG_REJECTED)) == 2


class TestPreview:
    def test_preview_returns_the_plan_and_applies_nothing(self, started, around, fake_log):
        around.files = SECOND
        outcome = started.preview()
        assert outcome.result == "applied"
        assert [SECOND.routes[0]] == [replaced.new for replaced in outcome.plan.replaced]
        assert started.current is FIRST
        assert (started.last, around.applied, fake_log.events) == (None, [], [])

    def test_preview_returns_the_problems_and_logs_none(self, started, around, fake_log):
        around.files = broken("no")
        assert [problem.message for problem in started.preview().problems] == ["no"]
        assert fake_log.events == []


class TestLoop:
    def test_change_is_applied_once_things_are_quiet(self, running, around):
        around.files = SECOND
        running.notice()
        wait_until(lambda: around.applied)
        assert around.applied == [SECOND]

    def test_changes_in_a_row_cause_one_reload(self, running, around):
        for _ in range(5):
            running.notice()
        wait_until(lambda: around.looks)
        settle()
        assert around.looks == 1

    def test_files_are_not_read_before_they_are_quiet(self, running, around, monkeypatch):
        monkeypatch.setattr(module, "QUIET_S", 3600.0)
        running.notice()
        settle()
        assert around.looks == 0

    def test_files_that_never_rest_are_read_after_the_cap(self, running, around, clock):
        def keep_changing() -> None:
            while True:
                running.notice()
                gevent.sleep(0.0005)

        writer = gevent.spawn(keep_changing)
        try:
            before = clock.calls
            wait_until(lambda: clock.calls > before + 10)  # the loop has found the files changing several times
            assert around.looks == 0
            clock.advance(module.QUIET_CAP_S)
            wait_until(lambda: around.looks)
        finally:
            writer.kill()

    def test_request_is_served_at_once(self, running, around, monkeypatch):
        monkeypatch.setattr(module, "QUIET_S", 3600.0)
        running.request()
        wait_until(lambda: around.looks)

    def test_request_ends_the_wait_for_quiet(self, running, around, monkeypatch):
        monkeypatch.setattr(module, "QUIET_S", 3600.0)
        running.notice()
        settle()
        running.request()
        wait_until(lambda: around.looks)

    def test_after_a_request_changes_wait_for_quiet_again(self, running, around, monkeypatch):
        running.request()
        wait_until(lambda: around.looks)
        monkeypatch.setattr(module, "QUIET_S", 3600.0)
        running.notice()
        settle()
        assert around.looks == 1

    def test_same_problems_are_logged_for_each_request(self, running, around, fake_log):
        around.files = broken("no")
        for times in (1, 2):
            running.request()
            wait_until(lambda times=times: len(fake_log.named(events.CONFIG_REJECTED)) == times)

    def test_change_during_a_reload_is_not_lost(self, running, around):
        third = replace(SECOND, sha="third")

        def edit_again() -> None:
            around.while_applying = lambda: None
            around.files = third
            running.notice()

        around.files = SECOND
        around.while_applying = edit_again
        running.notice()
        wait_until(lambda: running.current is third)
        assert around.applied == [SECOND, third]

    def test_request_during_a_reload_is_not_lost(self, running, around, monkeypatch):
        monkeypatch.setattr(module, "QUIET_S", 3600.0)
        around.files = SECOND
        around.while_applying = running.request
        running.request()
        wait_until(lambda: around.looks == 2)

    def test_crash_costs_one_reload_and_not_the_loop(self, running, around):
        around.files = SECOND
        around.refusal = BUG
        with caught_crashes() as crashes:
            running.notice()
            wait_until(lambda: crashes)
        assert running.current is FIRST
        around.refusal = None
        running.notice()
        wait_until(lambda: around.applied)
        assert running.current is SECOND


def crash_while_loading(around: Environment) -> None:
    around.files = BUG


def crash_while_comparing(around: Environment) -> None:
    around.files = replace(SECOND, routes=(None,))  # type: ignore[arg-type]  # as a bug of the loader may leave it


def crash_while_applying(around: Environment) -> None:
    around.files, around.refusal = SECOND, BUG


@pytest.mark.parametrize("break_a_step", [crash_while_loading, crash_while_comparing, crash_while_applying])
class TestCrash:
    def test_crash_rejects_the_files(self, started, around, fake_log, break_a_step):
        break_a_step(around)
        with caught_crashes() as crashes:
            outcome = started.reload()
        assert (outcome.result, started.current, started.last) == ("rejected", FIRST, outcome)
        assert started.results == {"rejected": 1}
        [problem] = outcome.problems
        assert str(problem).startswith(f"{PATH}: report this bug of the agent with its traceback")
        assert f"({type(crashes[0]).__name__})" in problem.message
        [line] = fake_log.named(events.CONFIG_REJECTED)
        assert line["problems"] == [str(problem)]

    def test_traceback_is_logged_once_until_an_operator_requests_a_reload(self, started, around, break_a_step):
        break_a_step(around)
        with caught_crashes() as crashes:
            for _ in range(3):
                started.reload(is_requested=False)
            assert len(crashes) == 1
            started.reload(is_requested=True)
            assert len(crashes) == 2

    def test_next_edit_is_read_afresh(self, started, around, break_a_step):
        break_a_step(around)
        with caught_crashes():
            started.reload()
        around.files, around.refusal = replace(SECOND, sha="third"), None
        assert started.reload().result == "applied"
        assert started.current is around.files

    def test_preview_answers_with_the_same_problem(self, started, around, break_a_step):
        break_a_step(around)
        with caught_crashes() as crashes:
            outcome = started.preview()
        if around.refusal is None:  # a preview applies nothing
            assert (outcome.result, len(crashes)) == ("rejected", 1)
            assert "report this bug of the agent" in str(outcome.problems[0])


class TestAfterCrash:
    def test_files_that_are_put_back_after_a_crash_are_applied(self, started, around):
        around.files, around.refusal = SECOND, BUG
        with caught_crashes():
            started.reload()
        around.files, around.refusal = FIRST, None
        started.reload()
        started.reload()
        assert around.applied == [FIRST]

    def test_bug_of_the_watcher_leaves_the_new_settings_at_work(self, started, around, monkeypatch):
        around.files, around.follow_bug = SECOND, BUG
        with caught_crashes() as crashes:
            assert started.reload().result == "applied"
        assert crashes == [BUG]
        assert (started.current, started.results) == (SECOND, {"applied": 1})

    def test_bug_of_the_store_leaves_the_new_settings_at_work(self, started, around):
        around.files, around.save_bug = SECOND, BUG
        with caught_crashes() as crashes:
            assert started.reload().result == "applied"
        assert crashes == [BUG]
        assert around.followed == [(SECOND.watched, SECOND.patterns)]
