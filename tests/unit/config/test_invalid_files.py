"""Each invalid file is refused with exactly the expected problems.

``tests/data/invalid/CLAIM.toml`` becomes ``agent.toml`` in an empty directory, next to the files of ``SETUP``; the
lines of ``CLAIM.expected`` are all that is reported.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pomagent.config.load import load
from pomagent.config.toml import MAX_FILE_BYTES
from pomagent.errors import ConfigError

DATA = Path(__file__).parents[2] / "data" / "invalid"
CLAIMS = sorted(path.stem for path in DATA.glob("*.toml"))
ENVIRON = {"GOOD_TOKEN": "token", "EMPTY_TOKEN": " "}


def _file(name: str, content: str, mode: int = 0o600) -> Callable[[], object]:
    def write() -> None:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(content)
        Path(name).chmod(mode)

    return write


SETUP: Mapping[str, list[Callable[[], object]]] = {
    "unreadable_token": [lambda: Path("a-directory").mkdir(), lambda: os.mkfifo("a-pipe", 0o600)],
    "token_readable_by_others": [_file("token.jwt", "hunter2", 0o644)],
    "empty_token": [_file("token.jwt", " \n")],
    "two_words_in_a_token": [_file("token.jwt", "Pomerium hunter2")],
    "forward_proxy": [_file("proxy.secret", "user hunter2")],
    "problem_in_an_included_file": [
        _file("routes.d/10-good.toml", '[[routes]]\nfrom = "a:1"\nlisten = "127.0.0.1:1"\ngateway = "paris"\n'),
        _file("routes.d/20-bad.toml", '[agent]\n\n[[routes]]\nname = "x"\nfrom = "a:1"\nlisten = ":1"\n'),
        _file("routes.d/30-empty.toml", "\n"),
        _file("routes.d/.#lock.toml", "not TOML"),
        _file("gateways.toml", '[gateways.paris]\nurl = "https://p"\n\n[gateways.corp]\nurl = "https://q"\n'),
    ],
    "broken_included_file": [_file("routes.d/a.toml", "[gateways.in-there]\nurl =\n")],
}  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS)
def test_an_invalid_file_is_refused_with_every_problem(claim: str, directory: Path) -> None:
    shutil.copy(DATA / f"{claim}.toml", "agent.toml")
    for prepare in SETUP.get(claim, []):
        prepare()
    with pytest.raises(ConfigError) as refusal:
        load(Path("agent.toml"), ENVIRON)
    reported = str(refusal.value).replace(f"{directory}/", "") + "\n"
    if os.environ.get("POMAGENT_TEST_ACCEPT"):  # to be read in the diff before it is committed
        (DATA / f"{claim}.expected").write_text(reported)
    assert (DATA / f"{claim}.expected").read_text() == reported


@pytest.mark.parametrize("claim", CLAIMS)
def test_no_problem_repeats_a_secret(claim: str) -> None:
    assert "hunter2" not in (DATA / f"{claim}.expected").read_text()


def test_every_expectation_and_every_preparation_belongs_to_a_file() -> None:
    assert sorted(path.stem for path in DATA.glob("*.expected")) == CLAIMS
    assert set(SETUP) <= set(CLAIMS)


def test_a_missing_file_is_a_problem_of_its_own(directory: Path) -> None:
    with pytest.raises(ConfigError, match=r"^no-such\.toml: cannot be read: No such file or directory$"):
        load(Path("no-such.toml"), {})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a = 1\n\xff\n", "agent.toml:2: not valid TOML: not UTF-8"),
        (b"a = " + b"[" * 100_000, "agent.toml:1: has more than 32 nested arrays and tables"),
        (b"a = " + b"9" * 5000, "agent.toml:1: has a number with more than 64 characters"),
        (b"\na = 0x" + b"F" * 5000, "agent.toml:2: has a number with more than 64 characters"),
        (b"a." * 500_000 + b"a = 1", "agent.toml:1: has more than 400000"),
        (b"a." * 100_000 + b"a = 1", "agent.toml:1: has a key with more than 32 parts"),
    ],
)
def test_malformed_toml_is_a_problem_without_a_traceback(content: bytes, problem: str, directory: Path) -> None:
    Path("agent.toml").write_bytes(content)
    with pytest.raises(ConfigError) as refusal:
        load(Path("agent.toml"), {})
    assert str(refusal.value).startswith(problem)


@pytest.mark.parametrize(("extra", "is_allowed"), [(-1, True), (0, True), (1, False)])
def test_a_file_has_at_most_8_mib(extra: int, is_allowed: bool, directory: Path) -> None:
    text = '[[routes]]\nfrom = "a:1"\nlisten = "127.0.0.1:1"\n'
    Path("agent.toml").write_text(text + "#" * (MAX_FILE_BYTES - len(text) + extra))
    if is_allowed:
        assert load(Path("agent.toml"), {}).routes
    else:
        with pytest.raises(ConfigError, match=r"^agent\.toml: is larger than 8388608 bytes$"):
            load(Path("agent.toml"), {})


def test_a_pipe_is_refused_at_once(directory: Path) -> None:
    os.mkfifo("agent.toml")
    with pytest.raises(ConfigError, match=r"^agent\.toml: is not a regular file but a named pipe$"):
        load(Path("agent.toml"), {})
