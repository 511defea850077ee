"""Tests that show a token, each in its own way, and some that show none; see ``tests/unit/test_secret_scan.py``."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.log import FakeLog
from tests.gateway import tokens
from tests.support.agent import processes
from tests.support.inspection import process_list

PRINT = "import os, sys; print('here it is:', sys.stdin.read())"


@pytest.fixture
def token() -> str:
    token = tokens.mint()
    with Path(os.environ["TOLD_FILE"]).open("a") as file:
        file.write(f"{token}\n")
    return token


@pytest.fixture
def token_file(token: str, tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(token)
    return path


def test_shown_by_print(token: str) -> None:
    print("here it is:", token)


def test_shown_by_its_signature_alone(token: str) -> None:
    print(token.rpartition(".")[2])


def test_shown_by_a_part_inside_of_other_text(token: str) -> None:
    print(f"token={token[-24:]}&more=1")


def test_shown_by_a_traceback(token: str) -> None:
    raise ValueError(token)


def test_shown_by_a_failed_comparison(token: str) -> None:
    assert token == ""


@pytest.mark.xfail
def test_shown_by_an_expected_failure(token: str) -> None:
    raise ValueError(token)


def test_shown_by_the_reason_to_skip(token: str) -> None:
    pytest.skip(token)


@pytest.fixture
def prints_at_its_end(token: str) -> Iterator[None]:
    yield
    print(token)


def test_shown_by_a_fixture_at_its_end(prints_at_its_end: None) -> None:
    pass


def test_shown_by_the_log(token: str) -> None:
    FakeLog().log.info("agent.started", version=token)


def test_shown_by_arguments(token: str) -> None:
    processes.run([sys.executable, "-c", "", token])


def test_shown_by_arguments_of_a_program_that_the_product_starts(token: str) -> None:
    with subprocess.Popen([sys.executable, "-c", "", token]):
        pass


def test_shown_by_arguments_of_a_grandchild(token_file: Path) -> None:
    _look_at('exec sh -c "echo; read line; exit" "$(cat "$0")"', token_file)


def test_shown_by_the_environment_of_a_grandchild(token_file: Path) -> None:
    _look_at('OTHER=$(cat "$0") exec sh -c "echo; read line; exit"', token_file)


def test_shown_by_an_inherited_stream(token: str) -> None:
    processes.run([sys.executable, "-c", PRINT], input=token, text=True)


def test_shown_by_captured_output(token: str) -> None:
    processes.run([sys.executable, "-c", PRINT], input=token, text=True, capture_output=True)


def test_shown_by_a_pipe_that_is_read_line_by_line(token_file: Path) -> None:
    with processes.Process(["cat", str(token_file)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()


def test_shown_by_a_file_that_is_gone(token_file: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        processes.run(["cat", str(token_file)], stdout=output, stderr=output)
    log.unlink()


def test_shown_by_a_program_that_has_not_ended(token_file: Path, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as output:
        process = processes.Process(["tail", "-f", str(token_file)], stdout=output)
    while not (tmp_path / "log").stat().st_size:
        pass
    processes.search_written()
    process.kill()
    process.wait()


def test_shown_by_a_program_that_mints_it(tmp_path: Path) -> None:
    script = "from tests.gateway import tokens; print(tokens.mint())"
    processes.run([sys.executable, "-c", script], capture_output=True, check=True)


def test_hidden_in_a_file_of_its_own(token_file: Path) -> None:
    print(f"the token is in {token_file}")


def test_hidden_in_the_variable_by_which_it_is_handed_over(token: str) -> None:
    environment = os.environ | {"MY_TOKEN": token}
    with processes.Process(["sh", "-c", "echo; read line; exit"], env=environment, **_PIPES) as process:
        process.stdout.readline()
        process_list.look()
        process.communicate()


def test_hidden_by_a_failure_that_names_it_not(token: str) -> None:
    pytest.fail("the failure that is meant", pytrace=False)


_PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


def _look_at(script: str, token_file: Path) -> None:
    """Look at the processes while the script's program waits for a line."""
    with processes.Process(["sh", "-c", f"({script})", str(token_file)], **_PIPES) as process:
        process.stdout.readline()
        process_list.look()
        process.communicate()
