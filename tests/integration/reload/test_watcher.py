"""Real edits of real files, made as editors, package managers and Kubernetes make them."""

import errno
import json
import shutil
import threading
from pathlib import Path

import gevent
import pytest
from watchdog.observers import Observer

from pomagent.log.logger import LogLevel, make_logger
from pomagent.reload import watcher as watch_module
from pomagent.reload.fingerprint import survey
from pomagent.reload.watcher import Watch, _Inotify
from tests.fakes.greenlets import caught_crashes
from tests.fakes.log import Lines
from tests.gateway.waiting import wait_until
from tests.support.agent import processes

NEVER_S = 3600
PATIENCE_S = 30


class Reader:
    """Stands in for the reloader: reads the files after each notice."""

    def __init__(self, *files, **options):
        self.files = files
        self.contents = None
        self.looks = 0
        self.lines = Lines()
        log = make_logger(self.lines, format="json", level=LogLevel())
        self.watch = Watch(self.look, log, **{"poll_interval_s": NEVER_S} | options)

    def look(self):
        self.looks += 1
        self.contents = [file.read_text() if file.exists() else None for file in self.files]

    def must_see(self, *contents):
        with gevent.Timeout(PATIENCE_S):
            while self.contents != list(contents):
                gevent.sleep(0.002)


@pytest.fixture
def etc(tmp_path):
    etc = tmp_path / "etc"
    etc.mkdir()
    return etc


@pytest.fixture
def start():
    readers = []

    def start(*files, watched=None, **options):
        reader = Reader(*files, **options)
        readers.append(reader)
        reader.watch.watch(frozenset(watched or files))
        return reader

    yield start
    for reader in readers:
        reader.watch.close()


def rename_save(file, text):
    new = file.with_name("save.tmp")
    new.write_text(text)
    new.rename(file)


def sed_in_place(file, text):
    processes.run(["sed", "-i", f"s/.*/{text}/", file], check=True)


def vim_backup(file, text):
    file.rename(f"{file}~")
    file.write_text(text)
    file.with_name(f"{file.name}~").unlink()


def delete_and_recreate(file, text):
    file.unlink()
    file.write_text(text)


def move_in_from_elsewhere(file, text):
    elsewhere = file.parent.parent / "download"
    elsewhere.write_text(text)
    elsewhere.rename(file)


def recreate_the_directory(file, text):
    shutil.rmtree(file.parent)
    file.parent.mkdir()
    file.write_text(text)


def swap_the_directory(file, text):
    new = file.parent.with_name("etc.new")
    new.mkdir()
    (new / file.name).write_text(text)
    file.parent.rename(file.parent.with_name(f"etc.{text}.old"))
    new.rename(file.parent)


def write_slowly(file, text):
    with file.open("w") as stream:
        for letter in text:
            stream.write(letter)
            stream.flush()


EDITS = [
    rename_save,
    lambda file, text: file.write_text(text),
    write_slowly,
    sed_in_place,
    vim_backup,
    delete_and_recreate,
    move_in_from_elsewhere,
    recreate_the_directory,
    swap_the_directory,
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_edit_is_noticed_again_and_again(etc, start, edit):
    file = etc / "agent.toml"
    file.write_text("v0")
    reader = start(file)
    for version in ("v1", "v2", "v3", "v4"):
        edit(file, version)
        reader.must_see(version)


@pytest.mark.parametrize("first", EDITS, ids=lambda edit: edit.__name__)
@pytest.mark.parametrize("second", EDITS, ids=lambda edit: edit.__name__)
def test_two_edits_in_a_row_end_with_the_second(etc, start, first, second):
    file = etc / "agent.toml"
    file.write_text("v0")
    reader = start(file)
    first(file, "v1")
    second(file, "v2")
    reader.must_see("v2")


def test_retargeted_link_is_noticed_and_its_new_target_watched(etc, start, tmp_path):
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "agent.toml").write_text(version)
    link = etc / "current"
    link.symlink_to(tmp_path / "v1")
    reader = start(link / "agent.toml")
    processes.run(["ln", "-sfn", tmp_path / "v2", link], check=True)
    reader.must_see("v2")
    (tmp_path / "v2/agent.toml").write_text("edited behind the link")
    reader.must_see("edited behind the link")


def test_edit_behind_a_link_is_noticed(etc, start, tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (real / "conf").write_text("v0")
    (etc / "agent.toml").symlink_to("../real/conf")
    reader = start(etc / "agent.toml")
    for version in ("v1", "v2"):
        rename_save(real / "conf", version)
        reader.must_see(version)


def test_config_map_of_kubernetes_is_followed(etc, start):
    """kubelet writes a new directory, swaps ..data by a rename and removes the old one."""

    def publish(text):
        old = (etc / "..data").resolve() if (etc / "..data").exists() else None
        new = etc / f"..{text}"
        new.mkdir()
        (new / "agent.toml").write_text(text)
        (etc / "..data_tmp").symlink_to(new.name)
        (etc / "..data_tmp").rename(etc / "..data")
        if old:
            shutil.rmtree(old)

    publish("v0")
    (etc / "agent.toml").symlink_to("..data/agent.toml")
    reader = start(etc / "agent.toml")
    for version in ("v1", "v2", "v3"):
        publish(version)
        reader.must_see(version)


def test_new_file_of_an_include_directory_is_noticed(etc, start):
    new = etc / "new.toml"
    reader = start(new, watched=[etc])
    new.write_text("route")
    reader.must_see("route")
    new.unlink()
    reader.must_see(None)


def test_include_directory_that_comes_later_is_noticed(etc, start):
    new = etc / "routes.d" / "new.toml"
    reader = start(new, watched=[etc / "routes.d"])
    (etc / "routes.d").mkdir()
    new.write_text("v1")
    reader.must_see("v1")
    rename_save(new, "v2")
    reader.must_see("v2")


def test_missing_file_is_noticed_when_it_comes_even_several_directories_deep(tmp_path, start):
    file = tmp_path / "run/secrets/deep/token"
    reader = start(file)
    file.parent.mkdir(parents=True)
    file.write_text("jwt")
    reader.must_see("jwt")


def test_new_set_replaces_the_old_one_and_counts_as_a_change(etc, start, tmp_path):
    (tmp_path / "other").mkdir()
    token, config = tmp_path / "other" / "token", etc / "agent.toml"
    reader = start(config, token, watched=[config])
    token.write_text("before it was watched")
    reader.watch.watch(frozenset({config, token}))
    reader.must_see(None, "before it was watched")
    token.write_text("v2")
    reader.must_see(None, "v2")


def test_path_that_is_no_longer_watched_is_ignored(etc, start, tmp_path):
    (tmp_path / "other").mkdir()
    reader = start(etc / "agent.toml", tmp_path / "other/token")
    reader.watch.watch(frozenset({etc / "agent.toml"}))
    assert set(reader.watch._inotify._armed) == {str(etc), str(tmp_path)}


def test_neighbours_and_reads_do_not_count(etc):
    """Watched without the poll, with one call for each event. The rename at the end is the only one."""
    calls = []
    inotify = _Inotify(lambda: calls.append(1), make_logger(Lines(), format="json", level=LogLevel()), Observer)
    file = etc / "agent.toml"
    file.write_text("v0")
    inotify.arm(survey([file], ("*.toml",)))
    with (etc / "agent.log").open("a") as log:
        for _ in range(1000):
            log.write("busy\n")
            log.flush()
    (etc / "agent.toml.swp").write_text("x")
    (etc / "other.toml").write_text("x")
    (etc / "agent.log").rename(etc / "agent.log.1")
    (etc / "agent.log.1").unlink()
    (etc / "directory").mkdir()
    for _ in range(10):
        file.read_text()
        list(etc.iterdir())
    rename_save(file, "v1")
    while not calls:
        gevent.sleep(0.002)
    inotify.close()
    assert calls == [1]


def test_directory_that_was_just_removed_logs_no_warning(etc):
    lines = Lines()
    inotify = _Inotify(lambda: None, make_logger(lines, format="json", level=LogLevel()), Observer)
    before = survey([etc / "agent.toml"], ())
    inotify.arm(before)
    etc.rmdir()
    inotify.arm(before)
    assert set(inotify._armed) == {str(etc.parent)}
    inotify.close()
    assert lines == []


def test_poll_notices_edits_without_an_event(etc, start):
    file = etc / "agent.toml"
    file.write_text("v0")
    reader = start(file, poll_interval_s=0.01, make_observer=SilentObserver)
    for version in ("v1", "v2"):
        file.write_text(version)
        reader.must_see(version)
    looks = reader.looks
    file.chmod(0o600)
    with gevent.Timeout(PATIENCE_S):
        while reader.looks == looks:
            gevent.sleep(0.002)
    assert reader.lines == []


class SilentObserver(Observer):
    """Accepts every watch and reports nothing, as on a file system without inotify."""

    def dispatch_events(self, event_queue):
        event_queue.get(block=True)


def no_instances():
    raise OSError(errno.EMFILE, "inotify instance limit reached")


class NoWatches(Observer):
    limit = 0

    def schedule(self, *args, **kwargs):
        if len(self.emitters) >= type(self).limit:
            raise OSError(errno.ENOSPC, "inotify watch limit reached")
        return super().schedule(*args, **kwargs)


@pytest.mark.parametrize("make_observer", [no_instances, NoWatches])
def test_poll_replaces_inotify_and_one_warning_reports_it(etc, start, make_observer):
    file = etc / "agent.toml"
    file.write_text("v0")
    reader = start(file, poll_interval_s=0.01, make_observer=make_observer)
    for version in ("v1", "v2", "v3"):
        file.write_text(version)
        reader.must_see(version)
    (line,) = reader.lines
    record = json.loads(line)
    assert (record["event"], record["level"], record["poll_ms"]) == ("watch.degraded", "warning", 10)
    assert "limit reached" in record["error"]


def test_inotify_is_used_again_once_it_is_available(etc, start, monkeypatch):
    file = etc / "agent.toml"
    file.write_text("v0")
    reader = start(file, make_observer=NoWatches)
    assert len(reader.lines) == 1
    monkeypatch.setattr(NoWatches, "limit", 100)
    reader.watch.watch(frozenset({file}))
    file.write_text("v1")
    reader.must_see("v1")
    assert len(reader.lines) == 1


def test_hub_goes_on_while_the_disk_is_slow(etc, start, monkeypatch):
    release, ticks = threading.Event(), []
    monkeypatch.setattr(watch_module, "fingerprint", lambda *_: release.wait(PATIENCE_S) and {"a": 1})
    reader = Reader(etc / "agent.toml")
    greenlet = gevent.pool.Group().spawn(reader.watch.watch, frozenset({etc / "agent.toml"}))
    while len(ticks) < 5:
        gevent.sleep(0.001)
        ticks.append(greenlet.dead)
    release.set()
    greenlet.join()
    reader.watch.close()
    assert ticks == [False] * 5


def test_bug_costs_one_reading_and_not_the_loop(etc, start, monkeypatch):
    file = etc / "agent.toml"
    file.write_text("v0")
    reader = start(file)
    monkeypatch.setattr(watch_module, "fingerprint", {}.__getitem__)
    with caught_crashes() as crashes:
        file.write_text("v1")
        wait_until(lambda: crashes)
        monkeypatch.undo()
        file.write_text("v2")
        reader.must_see("v2")


def test_close_leaves_no_thread_and_no_descriptor(etc, start):
    file = etc / "agent.toml"
    file.write_text("v0")
    Reader(file).watch.close()  # the first one of a process makes gevent's hub
    before = threads_and_descriptors()
    for _ in range(3):
        reader = Reader(file)
        reader.watch.watch(frozenset({file}))
        file.write_text("v1")
        reader.watch.close()
        reader.watch.close()
    looks = reader.looks
    file.write_text("v2")
    gevent.sleep(0)
    assert reader.looks == looks
    wait_until(lambda: threads_and_descriptors() <= before, PATIENCE_S, "no thread and no descriptor left")


def threads_and_descriptors():
    # An iteration's own descriptor is there before and after.
    return {(kind, entry.name) for kind in ("task", "fd") for entry in Path("/proc/self", kind).iterdir()}


def test_close_does_not_wait_for_a_disk_that_hangs(etc, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(watch_module, "CLOSE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(watch_module, "fingerprint", lambda *_: release.wait(PATIENCE_S) and {})
    reader = Reader(etc / "agent.toml")
    greenlet = gevent.pool.Group().spawn(reader.watch.watch, frozenset({etc / "agent.toml"}))
    gevent.sleep(0.01)
    reader.watch.close()
    assert not release.is_set()
    release.set()
    greenlet.join()
    reader.watch.close()
