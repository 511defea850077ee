"""Every way of editing the files of the real agent is one reload, without a state in between."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pomagent.reload import watcher as watch_module
from pomagent.reload.watcher import POLL_INTERVAL_S, RESTLESS_LOOKS, Watch
from tests.conftest import wait_until
from tests.fakes.log import FakeLog
from tests.gateway.certificates import Authority
from tests.support.agent import processes
from tests.support.agent.edited_agent import (
    HEAD,
    SOON_S,
    Desk,
    EditedAgent,
    in_namespace,
    must_have_applied,
    ports_of,
    route,
    sha,
    toml,
)
from tests.support.agent.editors import (
    EDITORS,
    PROGRAMS,
    TOOLS,
    Way,
    delete_and_create,
    mv,
    rename_over,
    sed_in_place,
    swap_the_directory,
    tee,
    write_in_place,
)

INCLUDING = '[agent]\ninclude = ["routes.d/*.toml"]\n\n' + HEAD
WITH_FILES = (
    HEAD
    + """gateway = "edge"

[credentials.default]
service_account_file = "token"

[gateways.edge]
url = "https://edge.invalid"
ca_file = "ca.pem"
client_cert_file = "client.pem"
client_key_file = "client.key"
"""
)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    here = Desk(tmp_path)
    try:
        yield here
        here.close()
    finally:
        here.kill()


# --- ways of editing agent.toml -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def old_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Desk, EditedAgent]]:
    """A desk with one agent for all tests of the module."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    try:
        yield desk, desk.start(toml(8001))  # ports that no other test uses
        desk.close()
    finally:
        desk.kill()


@pytest.mark.parametrize("edit", EDITORS + TOOLS + PROGRAMS, ids=lambda edit: edit.__name__)
def test_each_edit_is_one_reload(old_desk: tuple[Desk, EditedAgent], edit: Way) -> None:
    desk, agent = old_desk
    agent.look_now()
    agent.known = len(agent.applied)
    states: list[str] = []
    for ports in ((8001, 8002), (8003,)):
        text = f"# by {edit.__name__}\n" + toml(*ports)
        edit(desk.path, text)
        assert desk.path.read_text() == text
        states.append(sha((desk.path, text)))
        must_have_applied(agent, *states, ports=ports)


def test_file_deleted_and_created_much_later_is_one_reload(desk: Desk) -> None:
    agent = desk.start(toml(7001))
    desk.path.unlink()
    agent.wait_for("config.rejected")
    agent.must_listen_on({7001})
    desk.path.write_text(toml(7002))
    must_have_applied(agent, sha((desk.path, toml(7002))), ports={7002})


def test_directory_that_returns_is_watched(desk: Desk) -> None:
    agent = desk.start(toml(7001))
    away = desk.etc.rename(desk.beside / "away")
    agent.wait_for("config.rejected")
    (away / "agent.toml").write_text(toml(7001, 7002))
    away.rename(desk.etc)
    must_have_applied(agent, sha((desk.path, toml(7001, 7002))), ports={7001, 7002})
    mv(desk.path, toml(7002))
    agent.wait_for("config.applied", count=2)
    agent.must_listen_on({7002})


def test_recreated_directory_is_watched(desk: Desk) -> None:
    agent = desk.start(toml(7001))
    shutil.rmtree(desk.etc)
    agent.wait_for("config.rejected")
    desk.etc.mkdir()
    desk.path.write_text(toml(7002))
    must_have_applied(agent, sha((desk.path, toml(7002))), ports={7002})


# --- half-written files ---------------------------------------------------------------------------------------------


def cut(text: str, at: str) -> tuple[str, str]:
    """Return the text in two parts, the first of which ends within a value."""
    end = text.index(at) + len(at) // 2
    return text[:end], text[end:]


@pytest.mark.parametrize("is_empty_first", [False, True])
def test_file_written_in_pieces_is_applied_when_it_is_complete(desk: Desk, is_empty_first: bool) -> None:
    """A writer opens, appends and closes for each piece, after the agent has read the previous piece."""
    agent = desk.start(toml(7001, 7002))
    whole = toml(7001, 7002, 7003)
    first, rest = cut(whole, '"r7001"')
    second, third = cut(rest, '"r7003"')
    with desk.path.open("w") as stream:
        stream.write("" if is_empty_first else first)
    agent.wait_for("config.rejected")
    if is_empty_first:
        desk.path.write_text(first)
        agent.wait_for("config.rejected", count=2)
    rejected = len(agent.events("config.rejected"))
    with desk.path.open("a") as stream:
        stream.write(second)
    agent.wait_for("config.rejected", count=rejected + 1)
    agent.must_listen_on({7001, 7002})
    with desk.path.open("a") as stream:
        stream.write(third)
    must_have_applied(agent, sha((desk.path, whole)), ports={7001, 7002, 7003})
    assert not agent.events("listener.closed")


def test_open_file_is_read_when_its_writer_closes_it(desk: Desk) -> None:
    """This holds even if the content so far is a valid file: the agent reads after the writer has closed."""
    agent = desk.start(toml(7001, 7002))
    before = agent.looks
    with desk.path.open("w") as stream:
        for piece in (HEAD, route(7001), route(7002), route(7003)):
            stream.write(piece)
            stream.flush()
            time.sleep(
                0.3
            )  # longer than the quiet time; on a slow machine it may miss a fault, never report a wrong one
        assert agent.looks == before
    must_have_applied(agent, sha((desk.path, toml(7001, 7002, 7003))), ports={7001, 7002, 7003})
    assert not agent.events("config.rejected")


def test_reload_of_a_half_written_file_reports_its_problems(desk: Desk) -> None:
    agent = desk.start(toml(7001))
    whole = toml(7001, 7002)
    with desk.path.open("w") as stream:
        for piece in cut(whole, '"r7002"'):
            agent.look_now()  # empty, then half a file
            stream.write(piece)
            stream.flush()
    must_have_applied(agent, sha((desk.path, whole)), ports={7001, 7002})
    assert len(agent.events("config.rejected")) == 2


@pytest.mark.parametrize(("rests_at", "looks"), [(1, 2), (3, 4), (99, RESTLESS_LOOKS)])
def test_the_poll_waits_until_a_file_rests_but_not_for_ever(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, rests_at: int, looks: int
) -> None:
    """No notification arrived, so the writer may not have closed the file yet."""
    versions: list[int] = []
    told: list[int] = []
    polls = 0
    is_written = False

    def fingerprint(*_: object) -> int:
        nonlocal polls
        polls += 1
        if is_written:
            versions.append(min(len(versions) + 1, rests_at))
        return versions[-1] if versions else 0

    monkeypatch.setattr(watch_module, "fingerprint", fingerprint)
    watch = Watch(lambda: told.append(len(versions)), FakeLog().log, poll_interval_s=0.01)
    try:
        watch.watch(frozenset({desk.path}))
        before = polls
        wait_until(lambda: polls > before + RESTLESS_LOOKS)  # the poll that was running has ended
        is_written = True
        wait_until(lambda: any(told))
        assert told[-1] == looks
    finally:
        watch.close()


# --- links and mounts -----------------------------------------------------------------------------------------------


def test_a_retargeted_link_to_the_file_is_one_reload_and_its_target_is_watched(desk: Desk) -> None:
    for version in (1, 2):
        (desk.beside / f"v{version}.toml").write_text(toml(7000 + version))
    desk.path.symlink_to("../v1.toml")
    agent = desk.start()
    processes.run(["ln", "-sfn", "../v2.toml", desk.path], check=True)
    states = [sha((desk.path, toml(7002)))]
    must_have_applied(agent, *states, ports={7002})
    sed_in_place(desk.beside / "v2.toml", toml(7002, 7003))
    must_have_applied(agent, *states, sha((desk.path, toml(7002, 7003))), ports={7002, 7003})


def test_a_retargeted_link_to_the_directory_is_one_reload(desk: Desk) -> None:
    desk.etc.rmdir()
    for version in (1, 2):
        (desk.beside / f"v{version}").mkdir()
        (desk.beside / f"v{version}/agent.toml").write_text(toml(7000 + version))
    desk.etc.symlink_to("v1")
    agent = desk.start()
    processes.run(["ln", "-sfn", "v2", desk.etc], check=True)
    states = [sha((desk.path, toml(7002)))]
    must_have_applied(agent, *states, ports={7002})
    mv(desk.beside / "v2/agent.toml", toml(7003))
    must_have_applied(agent, *states, sha((desk.path, toml(7003))), ports={7003})


class Volume:
    """A volume of Kubernetes, written as kubelet does (pkg/volume/util/atomic_writer.go)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = itertools.count(1)

    def publish(self, **files: str) -> None:
        """Publish a new directory by renaming a link, link to its files, and remove the old directory."""
        data, draft = self._directory / "..data", self._directory / "..data_tmp"
        old = data.resolve() if data.exists() else None
        new = self._directory / f"..2026_11_22_12_00_{next(self._number):02}.123456789"
        new.mkdir(mode=0o755)
        for name, text in files.items():
            path = new / name.replace("_", ".")
            path.touch(mode=0o600)
            path.write_text(text)
            path.chmod(0o640)
        draft.symlink_to(new.name)
        draft.rename(data)
        for path in new.iterdir():
            if not os.path.lexists(self._directory / path.name):
                (self._directory / path.name).symlink_to(Path("..data", path.name))
        if old:
            shutil.rmtree(old)


def test_a_config_map_that_changes_is_one_reload_each_time(desk: Desk) -> None:
    volume = Volume(desk.etc)
    volume.publish(agent_toml=toml(7001))
    agent = desk.start()
    states: list[str] = []
    for text in (toml(7001, 7002), toml(7003), toml(7001)):
        volume.publish(agent_toml=text)
        states.append(sha((desk.path, text)))
        must_have_applied(agent, *states, ports=ports_of(text))


def test_a_volume_with_several_files_changes_as_one(desk: Desk) -> None:
    head = '[agent]\ninclude = ["*.conf"]\n\n[credentials.default]\nservice_account_file = "token"\n\n' + HEAD
    volume = Volume(desk.etc)
    volume.publish(agent_toml=toml(7001, head=head), token="first", more_conf=route(7002))
    agent = desk.start()
    volume.publish(agent_toml=toml(7003, head=head), token="second", more_conf=route(7004))
    agent.wait_for("config.applied")
    agent.must_listen_on({7003, 7004})
    agent.look_now()
    assert len(agent.applied) == 1
    assert not agent.events("config.rejected")


def test_a_file_that_is_mounted_by_itself_is_followed_by_the_poll(desk: Desk) -> None:
    """``docker run -v agent.toml:/etc/pomagent/agent.toml`` causes no event in the directory for a write outside."""
    outside = desk.beside / "outside.toml"
    outside.write_text(toml(7001))
    desk.path.touch()
    prefix = in_namespace("--mount", prepare='mount --bind "$1" "$2"', arguments=(outside, desk.path))
    agent = desk.start("", *prefix, poll_interval_s=SOON_S)
    states: list[str] = []
    for text in (toml(7002), toml(7003)):
        outside.write_text(text)
        states.append(sha((desk.path, text)))
        must_have_applied(agent, *states, ports=ports_of(text), for_nothing=4)
    assert desk.path.read_text() == ""  # outside the mount namespace
    assert not agent.events("watch.degraded")


# --- files that agent.toml names ------------------------------------------------------------------------------------


def test_an_included_directory_gains_changes_and_loses_files(desk: Desk) -> None:
    included = desk.etc / "routes.d"
    included.mkdir()
    main = toml(7001, head=INCLUDING)
    agent = desk.start(main)
    one, two = included / "1.toml", included / "2.toml"
    one.write_text(route(7002))
    states = [sha((desk.path, main), (one, route(7002)))]
    must_have_applied(agent, *states, ports={7001, 7002})
    mv(two, route(7003))
    states.append(sha((desk.path, main), (one, route(7002)), (two, route(7003))))
    must_have_applied(agent, *states, ports={7001, 7002, 7003})
    sed_in_place(one, route(7004))
    states.append(sha((desk.path, main), (one, route(7004)), (two, route(7003))))
    must_have_applied(agent, *states, ports={7001, 7003, 7004})
    two.rename(included / "2.toml.off")
    states.append(sha((desk.path, main), (one, route(7004))))
    must_have_applied(agent, *states, ports={7001, 7004})
    shutil.rmtree(included)
    assert "routes.d cannot be listed" in agent.wait_for("config.rejected")["problems"][0]
    must_have_applied(agent, *states, ports={7001, 7004})
    included.mkdir()
    two.write_text(route(7005))
    states.append(sha((desk.path, main), (two, route(7005))))
    must_have_applied(agent, *states, ports={7001, 7005})


def test_included_files_with_another_ending_are_followed(desk: Desk) -> None:
    (desk.etc / "routes.d").mkdir()
    main = toml(7001, head=INCLUDING.replace("*.toml", "*.conf"))
    agent = desk.start(main)
    new = desk.etc / "routes.d/new.conf"
    new.write_text(route(7002))
    states = [sha((desk.path, main), (new, route(7002)))]
    must_have_applied(agent, *states, ports={7001, 7002})
    new.unlink()
    must_have_applied(agent, *states, sha((desk.path, main)), ports={7001})


def test_included_directories_that_come_later_are_followed(desk: Desk) -> None:
    (desk.etc / "sites").mkdir()
    main = toml(7001, head=INCLUDING.replace("routes.d/*.toml", "sites/*/routes.toml"))
    agent = desk.start(main)
    new = desk.etc / "sites/paris/routes.toml"
    new.parent.mkdir()
    agent.look_now()  # the new directory is still empty
    new.write_text(route(7002))
    must_have_applied(agent, sha((desk.path, main), (new, route(7002))), ports={7001, 7002})


class Papers:
    """Token, CA certificate and client certificate of an agent, with replacements."""

    def __init__(self, desk: Desk) -> None:
        self._directory = desk.etc
        self._issued = 0
        self._beside = desk.beside

    def next(self, *names: str) -> dict[str, bytes]:
        """Return new contents of these files."""
        self._issued += 1
        directory = self._beside / f"issued{self._issued}"
        directory.mkdir()
        authority = Authority(directory)
        client = authority.issue_client()
        contents = {
            "token": f"token-{self._issued}\n".encode(),
            "ca.pem": authority.ca_file.read_bytes(),
            "client.pem": client.cert_file.read_bytes(),
            "client.key": client.key_file.read_bytes(),
        }
        return {name: contents[name] for name in names or contents}

    def write(self, *names: str) -> None:
        for name, content in self.next(*names).items():
            path = self._directory / name
            path.touch(mode=0o600)
            path.write_bytes(content)

    def rename(self, *names: str) -> None:
        for name, content in self.next(*names).items():
            path = self._directory / f"{name}.new"
            path.touch(mode=0o600)
            path.write_bytes(content)
            path.rename(self._directory / name)


@pytest.mark.parametrize("way", [Papers.write, Papers.rename], ids=lambda way: way.__name__)
def test_replacing_the_files_beside_agent_toml_is_one_reload(desk: Desk, way: Callable[..., None]) -> None:
    papers = Papers(desk)
    papers.write()
    agent = desk.start(toml(7001, head=WITH_FILES))
    for count, names in enumerate([("token",), ("ca.pem",), ("client.pem", "client.key")], 1):
        way(papers, *names)
        assert agent.wait_for("config.applied", count=count)["replaced"] == 1
        agent.look_now()
        assert len(set(agent.applied)) == len(agent.applied) == count
    agent.must_listen_on({7001})
    assert not agent.events("config.rejected")


def test_token_that_becomes_readable_again_is_one_reload(desk: Desk) -> None:
    """The poll notices a change of permissions."""
    papers = Papers(desk)
    papers.write()
    agent = desk.start(toml(7001, head=WITH_FILES), poll_interval_s=SOON_S)
    token = desk.etc / "token"
    token.chmod(0o644)
    assert "0644" in agent.wait_for("config.rejected")["problems"][0]
    papers.write("token")
    agent.look_now()
    assert not agent.applied
    token.chmod(0o600)
    agent.wait_for("config.applied")
    agent.look_now()
    assert len(agent.applied) == 1


def test_missing_file_of_a_rejected_edit_is_watched(desk: Desk) -> None:
    agent = desk.start(toml(7001))
    text = toml(7001, 7002, head='[credentials.default]\nservice_account_file = "secrets/token"\n\n' + HEAD)
    mv(desk.path, text)
    agent.wait_for("config.rejected")
    token = desk.etc / "secrets/token"
    token.parent.mkdir()
    token.touch(mode=0o600)
    token.write_text("token")
    agent.wait_for("config.applied")
    agent.must_listen_on({7001, 7002})
    assert len(agent.applied) == 1


# --- no edits -------------------------------------------------------------------------------------------------------


def test_busy_neighbours_cause_no_read_and_delay_no_edit(desk: Desk) -> None:
    agent = desk.start(toml(7001))
    before = agent.looks
    script = (
        'i=0; while :; do i=$((i+1)); echo "$i" >>"$1/app.log"; mv "$1/app.log" "$1/app.log.1"; : >"$1/.x.swp"; '
        "sleep 0.002; done"  # busy without overflowing the kernel's queue, after which a read is right
    )
    with processes.Process(["sh", "-c", script, "sh", desk.etc], stderr=subprocess.DEVNULL) as neighbour:
        try:
            seen = desk.etc / "app.log.1"
            wait_until(lambda: seen.exists() and int(seen.read_text() or "0") > 200, 60)
            agent.look_now()
            assert agent.looks == before + 1
            mv(desk.path, toml(7002))
            must_have_applied(agent, sha((desk.path, toml(7002))), ports={7002})
        finally:
            neighbour.kill()


def test_reading_and_touching_the_file_change_nothing(desk: Desk) -> None:
    agent = desk.start(toml(7001))
    before = agent.looks
    for _ in range(100):
        desk.path.read_bytes()
        list(desk.etc.iterdir())
    agent.look_now()
    assert agent.looks == before + 1
    desk.path.touch()
    rename_over(desk.path, toml(7001))
    agent.look_now()
    assert agent.applied == []


# --- signals --------------------------------------------------------------------------------------------------------


def test_sighup_reads_an_edit_once(desk: Desk) -> None:
    agent = desk.start(toml(7001))
    desk.path.write_text(toml(7002))
    agent.signal(signal.SIGHUP)
    must_have_applied(agent, sha((desk.path, toml(7002))), ports={7002})


def test_many_sighups_apply_an_edit_once(desk: Desk) -> None:
    agent = desk.start(toml(7001))
    for _ in range(50):
        agent.signal(signal.SIGHUP)
    agent.look_now()
    assert agent.applied == []
    agent.must_listen_on({7001})


# --- without inotify ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
def test_poll_finds_every_edit_without_inotify_after_one_warning(desk: Desk, limit: str) -> None:
    prefix = in_namespace("--user", prepare=f"echo 0 >/proc/sys/user/{limit}")
    agent = desk.start(toml(7001), *prefix, poll_interval_s=SOON_S)
    states: list[str] = []
    for edit in (mv, tee, swap_the_directory):
        text = toml(7002 + len(states))
        edit(desk.path, text)
        states.append(sha((desk.path, text)))
        must_have_applied(agent, *states, ports=ports_of(text), for_nothing=4)
    assert [event["level"] for event in agent.events("watch.degraded")] == ["warning"]


# --- random edits ---------------------------------------------------------------------------------------------------


class Scribe:
    """Makes random edits, each with a new text, and records every state on disk."""

    WAYS: tuple[Way, ...] = (
        write_in_place, rename_over, delete_and_create, mv, tee, sed_in_place, swap_the_directory,
    )  # fmt: skip

    def __init__(self, desk: Desk, seed: int) -> None:
        self._random = random.Random(seed)
        self._main = desk.path
        self._more = desk.etc / "routes.d/more.toml"
        self._ports: dict[Path, set[int]] = {self._main: {7001}, self._more: set()}
        self._edits = 0
        self.states: list[str] = []
        self._more.parent.mkdir()
        for file in (self._main, self._more):
            file.write_text(self._text(file))

    @property
    def ports(self) -> set[int]:
        return set().union(*self._ports.values())

    def edit(self) -> None:
        """Add, remove or move a route in either file, or change only a comment."""
        self._edits += 1
        file = self._random.choice([self._main, self._main, self._more])
        ports = self._ports[file]
        action = self._random.choice(["add", "remove", "move", "nothing"])
        if action in {"remove", "move"} and ports:
            ports.remove(self._random.choice(sorted(ports)))
        if action in {"add", "move"} or not self.ports:
            ports.add(self._random.choice([port for port in range(7001, 7301) if port not in self.ports]))
        self._write(file, self._text(file))

    def _write(self, file: Path, text: str) -> None:
        way = self._random.choice(self.WAYS)
        if way is swap_the_directory and file is self._more:
            way = rename_over
        way(file, text)
        self.states.append(self.state())

    def state(self) -> str:
        return sha((self._main, self._main.read_text()), (self._more, self._more.read_text()))

    def _text(self, file: Path) -> str:
        head = INCLUDING if file is self._main else ""
        return f"# edit {self._edits}\n" + toml(*sorted(self._ports[file]), head=head)

    def rest(self) -> None:
        """Sleep for about the quiet time, or hardly at all."""
        time.sleep(self._random.uniform(0.2, 0.4) if self._random.random() < 0.25 else self._random.uniform(0, 0.02))


def test_two_hundred_random_edits_apply_only_states_on_disk_and_end_with_the_last(desk: Desk) -> None:
    scribe = Scribe(desk, seed=20261122)
    agent = desk.start(poll_interval_s=POLL_INTERVAL_S)
    for _ in range(200):
        scribe.edit()
        scribe.rest()
    agent.wait_for("config.applied", sha=scribe.states[-1])
    agent.must_listen_on(scribe.ports)
    agent.look_now()
    assert_in_order(agent, scribe.states)
    agent.must_listen_on(scribe.ports)


def assert_in_order(agent: EditedAgent, states: list[str]) -> None:
    """Check that every applied state was on disk, and that the states were applied once and in order."""
    known = {state: number for number, state in enumerate(states)}
    numbers = [known[state] for state in agent.applied]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == len(states) - 1
