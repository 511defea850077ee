"""Shell completion."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.gateway.waiting import scaled
from tests.support.agent import processes
from tests.support.agent.agent_process import clean_environment

ROOT = Path(__file__).parents[2]
FILE = """
[gateways.corp]
url = "https://corp.example.com"

[[routes]]
name = "billing"
from = "tcp+https://billing.example.com:5432"
listen = "127.0.0.1:5432"

[[routes]]
name = "orders"
from = "orders.example.com:5432"
gateway = "corp"
listen = "127.0.0.1:5433"
"""
# Like bash at TAB: find the completion function registered for the command, and call it.
BASH = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
read -r -a registered < <(complete -p pomagent)
for ((i = 0; i < ${#registered[@]}; i++)); do [ "${registered[i]}" = -F ] && function=${registered[i + 1]}; done
compopt() { :; }
"$function" pomagent "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(FILE)
    (tmp_path / "pomagent").write_text(f'#!/bin/sh\nexec {sys.executable} -m pomagent "$@"\n')
    (tmp_path / "pomagent").chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["che"], ["check"]),
        (["check", "--di"], ["--diff"]),
        (["probe", "--config", "FILE", "b"], ["billing"]),
        (["probe", "--config", "FILE", ""], ["billing", "orders"]),
        (["login", "--config", "FILE", "c"], ["corp"]),
        (["login", "--config", "FILE", "bil"], ["billing.example.com:443"]),
        (["probe", "--config", "/nonexistent.toml", ""], [""]),
    ],
)
def test_bash_completes_commands_options_and_names(words: list[str], expected: list[str], file: Path) -> None:
    if not shutil.which("bash"):
        pytest.skip("not installed: bash")
    line = ["pomagent", *(str(file) if word == "FILE" else word for word in words)]
    done = processes.run(
        ["bash", "--norc", "-c", BASH, "bash", str(ROOT / "completions/pomagent.bash"), *line],
        capture_output=True, text=True, check=True, cwd=ROOT, timeout=scaled(60),
        env=clean_environment(PATH=f"{file.parent}:/usr/bin:/bin"),
    )  # fmt: skip
    assert (done.stdout.splitlines(), done.stderr) == (expected, "")
