"""Which directory entries a path depends on, and when two fingerprints differ."""

import os
from pathlib import Path

import pytest

from pomagent.reload import fingerprint as module
from pomagent.reload.fingerprint import fingerprint, survey

PATTERNS = ("*.toml",)


def names(*paths):
    return {directory: set(found) for directory, found in survey(paths, PATTERNS).names.items()}


@pytest.fixture
def etc(tmp_path):
    etc = tmp_path / "etc"
    etc.mkdir()
    return etc


def test_plain_file_depends_on_its_entry_and_its_directorys(etc):
    file = etc / "agent.toml"
    file.touch()
    assert names(file) == {str(etc): {"agent.toml"}, str(etc.parent): {"etc"}}


def test_every_hop_of_a_chain_of_links_counts(etc):
    """Kubernetes mounts a ConfigMap like this: agent.toml -> ..data/agent.toml, ..data -> ..2024."""
    (etc / "..2024").mkdir()
    (etc / "..2024/agent.toml").touch()
    (etc / "..data").symlink_to("..2024")
    (etc / "agent.toml").symlink_to("..data/agent.toml")
    assert names(etc / "agent.toml") == {
        str(etc): {"agent.toml", "..data", "..2024"},
        str(etc / "..2024"): {"agent.toml"},
        str(etc.parent): {"etc"},
    }


def test_linked_directory_on_the_way_counts(etc, tmp_path):
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1/agent.toml").touch()
    (etc / "current").symlink_to(tmp_path / "v1")
    found = names(etc / "current" / "agent.toml")
    assert found[str(etc)] == {"current"}
    assert found[str(tmp_path / "v1")] == {"agent.toml"}
    assert found[str(tmp_path)] == {"etc", "v1"}


def test_dots_are_followed_as_the_kernel_does(etc, tmp_path):
    (tmp_path / "deep/er").mkdir(parents=True)
    (etc / "link").symlink_to("../deep/er")
    (tmp_path / "deep/agent.toml").touch()
    assert names(etc / "link" / ".." / "agent.toml")[str(tmp_path / "deep")] == {"agent.toml"}


def test_first_missing_part_is_watched(etc):
    assert names(etc / "routes.d" / "deep" / "a.toml") == {str(etc): {"routes.d"}, str(etc.parent): {"etc"}}


def test_target_of_a_dangling_link_is_watched(etc, tmp_path):
    (etc / "agent.toml").symlink_to(tmp_path / "gone" / "agent.toml")
    assert names(etc / "agent.toml") == {
        str(etc): {"agent.toml"},
        str(tmp_path): {"etc", "gone"},
        str(tmp_path.parent): {tmp_path.name},
    }


def test_loop_of_links_ends(etc):
    (etc / "a").symlink_to("b")
    (etc / "b").symlink_to("a")
    assert names(etc / "a")[str(etc)] == {"a", "b"}
    assert fingerprint([etc / "a"], PATTERNS) == fingerprint([etc / "a"], PATTERNS)


def test_listed_directory_brings_its_matching_entries(etc, tmp_path):
    (etc / "a.toml").symlink_to(tmp_path / "elsewhere.toml")
    (etc / "notes.txt").touch()
    found = survey([etc], PATTERNS)
    assert found.listed == {str(etc)}
    assert found.names[str(etc)] == {"a.toml"}
    assert found.names[str(tmp_path)] == {"etc", "elsewhere.toml"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("agent.toml", True), ("agent.log", False), ("other.toml", False), (".agent.toml.swp", False)],
)
def test_neighbours_of_a_file_do_not_matter(etc, name, expected):
    (etc / "agent.toml").touch()
    assert survey([etc / "agent.toml"], PATTERNS).concerns(f"{etc}/{name}") is expected


@pytest.mark.parametrize(("name", "expected"), [("new.toml", True), ("a.log", False), ("a.toml~", False)])
def test_new_entries_of_a_listed_directory_matter_if_they_match(etc, name, expected):
    assert survey([etc], PATTERNS).concerns(f"{etc}/{name}") is expected


def test_entry_of_the_root_is_understood():
    assert survey([Path("/nowhere.toml")], PATTERNS).concerns("/nowhere.toml")


def test_path_without_permission_counts_as_a_file(etc, monkeypatch):
    def forbidden(self):
        raise PermissionError

    monkeypatch.setattr(Path, "is_dir", forbidden)
    assert survey([etc], PATTERNS).listed == frozenset()


def before_and_after(paths, change):
    before = fingerprint(paths, PATTERNS)
    change()
    return before, fingerprint(paths, PATTERNS)


def test_fingerprints_of_unchanged_files_are_equal(etc):
    (etc / "agent.toml").write_text("x")
    before, after = before_and_after([etc, etc / "agent.toml", etc / "missing"], (etc / "agent.toml").read_text)
    assert before == after


def test_content_counts_even_if_size_and_time_are_restored(etc):
    file = etc / "agent.toml"
    file.write_text("a = 1")
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns

    def change():
        file.write_text("a = 2")
        os.utime(file, ns=times)

    before, after = before_and_after([file], change)
    assert before != after


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.chmod(0o600),
        lambda file: file.unlink(),
        lambda file: os.utime(file, (1, 1)),
        lambda file: file.with_name("new.toml").touch(),
        lambda file: (file.unlink(), file.symlink_to("nowhere")),
    ],
)
def test_other_changes_count(etc, change):
    file = etc / "a.toml"
    file.write_text("x")
    file.chmod(0o644)
    before, after = before_and_after([etc], lambda: change(file))
    assert before != after


def test_file_that_appears_counts(etc):
    before, after = before_and_after([etc / "agent.toml"], (etc / "agent.toml").touch)
    assert before != after


def test_pipe_is_not_opened(etc):
    os.mkfifo(etc / "agent.toml")
    assert fingerprint([etc / "agent.toml"], PATTERNS)


@pytest.mark.parametrize(("size", "is_hashed"), [(9, True), (10, True), (11, False)])
def test_huge_file_is_compared_by_its_stat_alone(etc, monkeypatch, size, is_hashed):
    monkeypatch.setattr(module, "MAX_HASHED_BYTES", 10)
    (etc / "agent.toml").write_bytes(b"x" * size)
    (found,) = fingerprint([etc / "agent.toml"], PATTERNS).values()
    assert bool(found[1]) is is_hashed
