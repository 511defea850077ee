"""An included file that cannot be read is a problem that may pass; only a listed directory can lack one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pomagent.config.load import load
from pomagent.errors import ConfigError

NOBODY = 65534
MAIN = """
[agent]
include = ["{pattern}"]

[[routes]]
from = "tcp+https://a.example.com:6379"
listen = "127.0.0.1:6379"
"""
OTHER = '[[routes]]\nfrom = "tcp+https://b.example.com:22"\nlisten = "127.0.0.1:2222"\n'


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user can read, unlike those of pytest."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def unprivileged() -> Iterator[Callable[[], None]]:
    """Make the effective user subject to permissions, even if the tests run as root."""
    user = os.geteuid()
    yield lambda: os.seteuid(NOBODY) if user == 0 else None
    os.seteuid(user)


def _vanishes(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def _is_denied(path: Path) -> None:
    path.chmod(0)


def _loops(path: Path) -> None:
    _vanishes(path)
    path.symlink_to(path)


def _dangles(path: Path) -> None:
    _vanishes(path)
    path.symlink_to("no-such-target")


def _becomes_a_pipe(path: Path) -> None:
    _vanishes(path)
    os.mkfifo(path)


KINDS = [_vanishes, _is_denied, _loops, _dangles, _becomes_a_pipe]
INPUTS = [
    ("routes.d/b.toml", "routes.d/b.toml"),  # a file by its name
    ("routes.d/*.toml", "routes.d/b.toml"),  # a file by a pattern
    ("routes.d/*.toml", "routes.d"),  # a directory
    ("*/b.toml", "routes.d"),  # a directory by a pattern
    ("link.toml", "routes.d/b.toml"),  # the target of a link to a file
    ("*.toml", "routes.d/b.toml"),
    ("linked.d/*.toml", "routes.d"),  # the target of a link to a directory
    ("linked.d/b.toml", "routes.d"),
]
LISTED = {
    (_vanishes, "routes.d/*.toml", "routes.d/b.toml"),
    (_vanishes, "*/b.toml", "routes.d"),
    (_becomes_a_pipe, "*/b.toml", "routes.d"),
}
"""Where the parent can be listed and lacks the entry, or lacks a directory, which means that it was removed."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("pattern", "lost"), INPUTS)
def test_absence_is_a_removal_only_in_a_listed_directory(
    kind: Callable[[Path], None], pattern: str, lost: str, public: Path, unprivileged: Callable[[], None]
) -> None:
    main = public / "agent.toml"
    main.write_text(MAIN.format(pattern=pattern))
    (public / "routes.d").mkdir(mode=0o755)
    (public / "routes.d/b.toml").write_text(OTHER)
    if pattern.startswith("link") or pattern == "*.toml":
        (public / "link.toml").symlink_to("routes.d/b.toml")
        (public / "linked.d").symlink_to("routes.d")
    assert len(load(main, {}).routes) == 2
    kind(public / lost)
    unprivileged()
    if (kind, pattern, lost) in LISTED:
        assert len(load(main, {}).routes) == (2 if pattern == "*/b.toml" else 1)  # 2: it is found below its new name
        return
    with pytest.raises(ConfigError) as refusal:
        load(main, {})
    assert refusal.value.may_pass, refusal.value
    assert all(problem.key == "agent.include" and problem.line == 3 for problem in refusal.value.problems)
    wanted = {os.path.realpath(public / lost), str((public / lost).parent)}
    assert wanted & {os.path.realpath(path) for path in refusal.value.watched}


def test_another_mistake_beside_an_unreadable_file_does_not_pass(tmp_path: Path) -> None:
    main = tmp_path / "agent.toml"
    main.write_text(MAIN.format(pattern="none.d/*.toml") + "colour = 1\n")
    with pytest.raises(ConfigError) as refusal:
        load(main, {})
    assert len(refusal.value.problems) == 2
    assert not refusal.value.may_pass


def test_a_missing_main_file_does_not_pass(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(tmp_path / "agent.toml", {})
    assert not refusal.value.may_pass


@pytest.mark.parametrize("pattern", ["", ".", "a**/b", "**b", "a/**c/d", "nul\\u0000"])
def test_an_element_that_can_name_no_file_is_a_problem_of_the_text(pattern: str, tmp_path: Path) -> None:
    main = tmp_path / "agent.toml"
    main.write_text(MAIN.format(pattern=pattern))
    with pytest.raises(ConfigError) as refusal:
        load(main, {})
    assert not refusal.value.may_pass
