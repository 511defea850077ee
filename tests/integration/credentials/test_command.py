"""A real command that prints a token, in every way that it can go wrong."""

from __future__ import annotations

import errno
import gc
import os
import sys
from pathlib import Path

import pytest

from pomagent.credentials import command
from pomagent.credentials.command import MAX_PRINTED_BYTES, MAX_SAID_CHARACTERS, Printed, run_command
from pomagent.errors import CredentialError
from pomagent.settings import Credential
from tests.gateway.waiting import wait_until


def run(script: str, timeout_s: float = 20.0, **environ: str) -> Printed:
    command = ("/bin/sh", "-c", script)
    return run_command(Credential("ops", "command", command=command, command_timeout_s=timeout_s), environ)


def test_what_it_prints_is_the_token() -> None:
    printed = run("echo '  header.payload.signature  '")
    assert printed.token.get_secret_value() == "header.payload.signature"
    assert printed.said == ""


def test_what_it_says_besides_is_told_without_the_token() -> None:
    printed = run("echo my-secret-token; echo 'minted my-secret-token' >&2; echo for you >&2")
    assert printed.said == "minted ********** for you"


def test_it_gets_the_agents_environment_and_no_input() -> None:
    assert run('cat; echo "$WHO"', WHO="bastion-one").token.get_secret_value() == "bastion-one"


def test_a_failure_is_told_with_its_code_and_what_it_said() -> None:
    with pytest.raises(CredentialError, match=r"^/bin/sh failed with exit code 3: no such vault$"):
        run("echo no such vault >&2; exit 3")


def test_a_failure_does_not_show_a_token_that_was_printed_all_the_same() -> None:
    with pytest.raises(CredentialError) as failed:
        run("echo my-secret-token; echo 'rejected my-secret-token' >&2; exit 1")
    assert "my-secret" not in str(failed.value)


def test_much_talk_is_cut() -> None:
    assert len(run("echo token-token; yes 'words and words' | head -n 1000 >&2").said) == MAX_SAID_CHARACTERS


@pytest.mark.parametrize(("script", "sentence"), [("true", "is empty"), ("echo two words", "more than one word")])
def test_what_is_no_token_is_refused(script: str, sentence: str) -> None:
    with pytest.raises(CredentialError, match=sentence):
        run(script)


def test_more_than_a_token_is_refused() -> None:
    exactly = f"{sys.executable} -c 'print(\"x\" * {MAX_PRINTED_BYTES - 1})'"
    assert len(run(exactly).token.get_secret_value()) == MAX_PRINTED_BYTES - 1
    with pytest.raises(CredentialError, match="more than"):
        run(f"{sys.executable} -c 'print(\"x\" * {MAX_PRINTED_BYTES})'")


def test_one_that_prints_without_end_is_ended_at_once() -> None:
    with pytest.raises(CredentialError, match="more than"):
        run("exec yes", timeout_s=600)


def test_one_that_complains_without_end_costs_no_memory_and_is_ended_in_time() -> None:
    with pytest.raises(CredentialError, match=r"no token within 0\.5 s"):
        run("exec yes >&2", timeout_s=0.5)


def test_one_that_closes_its_output_and_goes_on_has_the_same_budget() -> None:
    with pytest.raises(CredentialError, match=r"no token within 0\.5 s"):
        run("echo token-token; exec >&- 2>&-; sleep 600", timeout_s=0.5)


@pytest.mark.parametrize(
    "secret", ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJvcHMifQ.c2lnbmF0dXJl", "s.0123456789abcdef0123456789abcdef01234567"]
)
def test_other_secrets_that_it_says_are_not_told_either(secret: str) -> None:
    said = run(f"echo token-token; echo 'Authorization: Bearer {secret}' >&2").said
    assert said.startswith("Authorization: Bearer ")
    assert secret[4:] not in said


def test_a_command_that_does_not_exist_is_named() -> None:
    missing = Credential("ops", "command", command=("/nonexistent/mint",))
    with pytest.raises(CredentialError, match=r"^/nonexistent/mint cannot be run: No such file or directory$"):
        run_command(missing, {})


def test_a_command_that_hangs_is_ended_with_everything_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(CredentialError, match=r"no token within 0\.5 s"):
        run(f"sleep 600 & echo $! >> {pids}; echo $$ >> {pids}; wait", timeout_s=0.5)
    for pid in pids.read_text().split():
        wait_until(lambda pid=pid: not _runs(int(pid)), 5, f"{pid} has ended")


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_command_that_may_not_be_ended_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(group: int, number: int) -> None:  # as of a command that has become another user, by sudo for one
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
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()  # nobody may be there to reap an orphan
