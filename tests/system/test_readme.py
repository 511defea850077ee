"""The commands and the file in the README work."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateway.agent_toml import write_agent_toml, write_token
from tests.gateway.facade import Gateway
from tests.gateway.ports import LOOPBACK, unused_port
from tests.support.agent import processes
from tests.support.agent.agent_process import AgentProcess, clean_environment, pomagent

README = (Path(__file__).parents[2] / "README.md").read_text()
COMMANDS = [
    re.split(r"\s+#\s", line)[0].strip()
    for block in re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
OF_POMAGENT = [line.removeprefix("pomagent ") for line in COMMANDS if line.startswith("pomagent ")]
RUN_ELSEWHERE = {
    "pip install .",
    "./scripts/demo",
    "./scripts/demo --check",
    "./scripts/test",
    "./scripts/test booted",
    "./scripts/check",
    "./scripts/nightly",
}


@pytest.fixture
def directory(gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with agent.toml and bastion.jwt, and with the gateway's CA trusted."""
    write_agent_toml(tmp_path, gateway, {"echo": f"{LOOPBACK}:{unused_port()}"}, status={"listen": ""})
    write_token(tmp_path / "bastion.jwt", gateway.token)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_of_the_readme_has_a_test() -> None:
    rest = [line for line in COMMANDS if not line.startswith(("pomagent ", "ssh ")) and line not in RUN_ELSEWHERE]
    assert rest == ["python -m scripts.docs"]


@pytest.mark.parametrize("line", [line for line in OF_POMAGENT if line.startswith(("check", "probe"))])
def test_command_on_the_file_succeeds(line: str, directory: Path) -> None:
    done = pomagent(*line.split())
    assert done.returncode == 0, done.stdout + done.stderr


def test_run_serves_until_a_signal(directory: Path) -> None:
    assert "run --config agent.toml" in OF_POMAGENT
    with AgentProcess(directory / "agent.toml") as agent:
        agent.signal(signal.SIGTERM)


def test_tcp_listens_on_the_printed_address(directory: Path, gateway: Gateway) -> None:
    (line,) = [line for line in OF_POMAGENT if line.startswith("tcp")]
    host = re.escape("redis.corp.example.com:6379")
    arguments = re.sub(host, f"tcp+https://localhost:{gateway.port}/echo.example.test:7000", line).split()
    environment = clean_environment(SSL_CERT_FILE=str(gateway.ca_file))
    command = [sys.executable, "-m", "pomagent", *arguments]
    with processes.Process(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    ) as process:
        assert process.stdout
        assert re.fullmatch(r"listening on 127\.0\.0\.1:\d+\n", process.stdout.readline())
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


def test_first_example_of_the_readme_is_valid(tmp_path: Path) -> None:
    text = re.search(r"^```toml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert text
    write_token(tmp_path / "bastion.jwt", "header.payload.signature")
    (tmp_path / "agent.toml").write_text(text[1].replace("/etc/pomagent", str(tmp_path)))
    done = pomagent("check", "--config", str(tmp_path / "agent.toml"))
    assert (done.returncode, done.stderr) == (0, "")
