"""A real command prints a token, or fails in every way that it can."""

from __future__ import annotations

import errno
import gc
import os
import sys
from pathlib import Path

import pytest

from pomagent.credentials import command
from pomagent.credentials.command import MAX_OUTPUT_BYTES, MAX_STDERR_CHARACTERS, CommandOutput, run_command
from pomagent.errors import CredentialError
from pomagent.settings import Credential
from tests.gateway.waiting import wait_until


def run(script: str, timeout_s: float = 20.0, **environ: str) -> CommandOutput:
    command = ("/bin/sh", "-c", script)
    return run_command(Credential("ops", "command", command=command, command_timeout_s=timeout_s), environ)


def test_the_output_is_the_token() -> None:
    output = run("echo '  header.payload.signature  '")
    assert output.token.get_secret_value() == "header.payload.signature"
    assert output.stderr == ""


def test_standard_error_is_returned_without_the_token() -> None:
    output = run("echo my-secret-token; echo 'minted my-secret-token' >&2; echo for you >&2")
    assert output.stderr == "minted ********** for you"


def test_the_command_gets_the_agents_environment_and_no_input() -> None:
    assert run('cat; echo "$HOST_NAME"', HOST_NAME="bastion-one").token.get_secret_value() == "bastion-one"


def test_a_failure_is_reported_with_exit_code_and_standard_error() -> None:
    with pytest.raises(CredentialError, match=r"^/bin/sh failed with exit code 3: no such vault$"):
        run("echo no such vault >&2; exit 3")


def test_a_failure_does_not_show_the_token_of_the_output() -> None:
    with pytest.raises(CredentialError) as failed:
        run("echo my-secret-token; echo 'rejected my-secret-token' >&2; exit 1")
    assert "my-secret" not in str(failed.value)


def test_long_standard_error_is_cut() -> None:
    assert len(run("echo token-token; yes 'words and words' | head -n 1000 >&2").stderr) == MAX_STDERR_CHARACTERS


@pytest.mark.parametrize(("script", "sentence"), [("true", "is empty"), ("echo two words", "more than one word")])
def test_output_that_is_no_token_is_rejected(script: str, sentence: str) -> None:
    with pytest.raises(CredentialError, match=sentence):
        run(script)


def test_output_over_the_limit_is_rejected() -> None:
    exactly = f"{sys.executable} -c 'print(\"x\" * {MAX_OUTPUT_BYTES - 1})'"
    assert len(run(exactly).token.get_secret_value()) == MAX_OUTPUT_BYTES - 1
    with pytest.raises(CredentialError, match="more than"):
        run(f"{sys.executable} -c 'print(\"x\" * {MAX_OUTPUT_BYTES})'")


def test_a_command_with_endless_output_is_killed_at_once() -> None:
    with pytest.raises(CredentialError, match="more than"):
        run("exec yes", timeout_s=600)


def test_endless_standard_error_costs_no_memory_and_is_bounded_by_the_timeout() -> None:
    with pytest.raises(CredentialError, match=r"no token within 0\.5 s"):
        run("exec yes >&2", timeout_s=0.5)


def test_a_command_that_closes_its_output_has_the_same_timeout() -> None:
    with pytest.raises(CredentialError, match=r"no token within 0\.5 s"):
        run("echo token-token; exec >&- 2>&-; sleep 600", timeout_s=0.5)


@pytest.mark.parametrize(
    "secret", ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJvcHMifQ.c2lnbmF0dXJl", "s.0123456789abcdef0123456789abcdef01234567"]
)
def test_other_secrets_on_standard_error_are_redacted(secret: str) -> None:
    stderr = run(f"echo token-token; echo 'Authorization: Bearer {secret}' >&2").stderr
    assert stderr.startswith("Authorization: Bearer ")
    assert secret[4:] not in stderr


def test_a_command_that_does_not_exist_is_named() -> None:
    missing = Credential("ops", "command", command=("/nonexistent/mint",))
    with pytest.raises(
        CredentialError, match=r"^correct the .* command: /nonexistent/mint cannot be run: No such file or directory$"
    ):
        run_command(missing, {})


def test_a_hanging_command_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(CredentialError, match=r"no token within 0\.5 s"):
        run(f"sleep 600 & echo $! >> {pids}; echo $$ >> {pids}; wait", timeout_s=0.5)
    for pid in pids.read_text().split():
        wait_until(lambda pid=pid: not _runs(int(pid)), 5, f"{pid} has ended")


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_command_that_cannot_be_killed_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(group: int, number: int) -> None:  # as for a command that became another user by sudo
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "killpg", denied)
    monkeypatch.setattr(command, "END_TIMEOUT_S", 0.1)
    with pytest.raises(CredentialError, match=r"no token within 0\.1 s"):
        run("exec sleep 5", timeout_s=0.1)
    gc.collect()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()  # an orphan may never be reaped
