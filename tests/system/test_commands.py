"""Commands that read a file, their exit codes, and the absence of secrets in their output."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.support.agent import processes
from tests.support.agent.agent_process import clean_environment, connect, pomagent
from tests.support.agent.bastion import ANY, Bastion, on, say
from tests.support.agent.tcp_process import gateway_flags

USAGE, CANNOT_SERVE, CANNOT_WRITE, NOT_PERMITTED, INVALID = 2, 69, 74, 77, 78
REPOSITORY = Path(__file__).resolve().parents[2]
COMMANDS = ("run", "check", "probe", "tcp", "schema")


# check.


def test_check_accepts_a_valid_file(bastion: Bastion) -> None:
    bastion.save({"echo": ANY, "banner": {"listen": ANY, "enabled": False}})
    done = pomagent("check", "--config", str(bastion.path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{bastion.path}: valid: 2 routes, 1 of them disabled\n"


def test_check_reports_a_valid_file_as_json(bastion: Bastion) -> None:
    bastion.save({"echo": ANY})
    done = pomagent("check", "--json", "--config", str(bastion.path))
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"valid": True, "problems": [], "warnings": []}


@pytest.mark.parametrize(
    ("closed", "arguments", "code"),
    [
        ("<&-", ["tcp", "--no-login", "--listen", "-", "tcp+https://127.0.0.1:1/db.example.com:5432"], CANNOT_SERVE),
        (">&-", ["tcp", "--no-login", "--listen", "-", "tcp+https://127.0.0.1:1/db.example.com:5432"], CANNOT_SERVE),
        ("2>&-", ["run", "--config", "/nonexistent/agent.toml"], INVALID),
    ],
)
def test_a_closed_standard_stream_causes_no_traceback(closed: str, arguments: list[str], code: int) -> None:
    command = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "pomagent", *arguments]
    done = processes.run(command, capture_output=True, check=False, env=clean_environment())
    assert done.returncode == code
    assert b"Traceback" not in done.stderr


def test_a_character_missing_in_the_encoding_causes_no_traceback(bastion: Bastion) -> None:
    bastion.save({"echo": ANY}, defaults={"warm": "tls"})
    agent = bastion.start({"echo": ANY}, defaults={"warm": "tls"})
    agent.stop()
    bastion.save({"echo": ANY}, defaults={"warm": "off"})
    environment = {**agent.environment, "PYTHONIOENCODING": "latin-1"}
    done = pomagent("check", "--diff", "--config", str(bastion.path), **environment)
    assert (done.returncode, "tls \\u2192 off" in done.stdout) == (0, True), done.stderr


def test_every_problem_is_reported_with_file_line_and_key(bastion: Bastion) -> None:
    bastion.save({"echo": {"listen": "nowhere"}, "banner": {"listen": ANY, "colour": "red"}})
    done = pomagent("check", "--config", str(bastion.path))
    assert (done.returncode, done.stdout) == (INVALID, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    for line, key in zip(lines, ("routes.echo.listen", "routes.banner.colour"), strict=True):
        number, _, text = line.removeprefix(f"{bastion.path}:").partition(": ")
        assert text.startswith(f"{key}: ")
        assert bastion.path.read_text().splitlines()[int(number) - 1].startswith(key.rpartition(".")[2])


def test_check_reports_problems_as_json(bastion: Bastion) -> None:
    bastion.save_text("[[routes]\n")
    done = pomagent("check", "--json", "--config", str(bastion.path))
    assert (done.returncode, done.stderr) == (INVALID, "")
    document = json.loads(done.stdout)
    assert document["valid"] is False
    (problem,) = document["problems"]
    assert (problem["file"], problem["line"]) == (str(bastion.path), 1)
    assert "TOML" in problem["message"]


def test_a_missing_file_is_an_invalid_configuration(tmp_path: Path) -> None:
    done = pomagent("check", "--config", str(tmp_path / "agent.toml"))
    assert done.returncode == INVALID
    assert str(tmp_path / "agent.toml") in done.stderr


def test_the_environment_names_the_file(bastion: Bastion) -> None:
    bastion.save({"echo": ANY})
    done = pomagent("check", POMAGENT_CONFIG=str(bastion.path))
    assert done.returncode == 0
    assert str(bastion.path) in done.stdout


def test_the_flag_wins_over_the_environment(bastion: Bastion, tmp_path: Path) -> None:
    bastion.save({"echo": ANY})
    assert pomagent("check", "-c", str(bastion.path), POMAGENT_CONFIG=str(tmp_path / "none")).returncode == 0


def test_an_override_from_the_environment_is_checked_like_the_file(bastion: Bastion) -> None:
    bastion.save({"echo": ANY})
    done = pomagent("check", "--config", str(bastion.path), POMAGENT_AGENT__LOG_LEVEL="loud")
    assert done.returncode == INVALID
    assert done.stderr.startswith("environment: POMAGENT_AGENT__LOG_LEVEL: ")


@pytest.mark.parametrize(("left_s", "word"), [(-60, "expired"), (3600, "expires"), (30 * 86_400, "")])
def test_a_token_that_expires_soon_causes_a_warning(bastion: Bastion, left_s: int, word: str) -> None:
    bastion.save({"echo": ANY})
    claims = base64.urlsafe_b64encode(json.dumps({"exp": int(time.time()) + left_s}).encode()).rstrip(b"=").decode()
    bastion.replace_token(f"e30.{claims}.c2ln")
    done = pomagent("check", "--config", str(bastion.path))
    assert (done.returncode, done.stdout) == (0, f"{bastion.path}: valid: 1 route\n")
    assert (f"credentials.default: replace the token: it {word}" in done.stderr) if word else (done.stderr == "")
    assert claims not in done.stderr


@pytest.mark.skipif(Path("/etc/pomagent/agent.toml").exists(), reason="there is one on this host")
@pytest.mark.parametrize("command", ["check", "run", "probe"])
def test_a_missing_configuration_names_the_remedy(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.chdir(tmp_path)
    done = pomagent(command)
    expected = "/etc/pomagent/agent.toml: does not exist; create it, or name your file with --config\n"
    assert (done.returncode, done.stdout, done.stderr) == (INVALID, "", expected)


@pytest.mark.parametrize("command", [["schema"], ["check"], ["probe", "--json"]])
def test_a_full_disk_is_reported_in_a_sentence(bastion: Bastion, command: list[str]) -> None:
    bastion.save({"echo": ANY})
    with Path("/dev/full").open("wb") as full:
        done = processes.run(
            [sys.executable, "-m", "pomagent", *command], stdout=full, stderr=subprocess.PIPE, check=False, text=True,
            env=clean_environment(POMAGENT_CONFIG=str(bastion.path)),
        )  # fmt: skip
    sentence = "pomagent: cannot write to standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (CANNOT_WRITE, sentence)


# run.


def test_an_override_from_the_environment_wins_over_the_file(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, agent={"log_level": "error"})  # and POMAGENT_AGENT__LOG_LEVEL=debug
    assert agent.wait_for("pool.filled")["level"] == "debug"


def test_an_invalid_file_ends_the_run_with_every_problem_in_the_log(bastion: Bastion) -> None:
    bastion.save({"echo": {"listen": "nowhere"}, "banner": {"listen": ANY, "colour": "red"}})
    done = pomagent("run", "--config", str(bastion.path), POMAGENT_AGENT__LOG_FORMAT="json")
    assert (done.returncode, done.stdout) == (INVALID, "")
    (rejected,) = _events(done.stderr, "config.rejected")
    assert [problem.split(": ")[1] for problem in rejected["problems"]] == [
        "routes.echo.listen",
        "routes.banner.colour",
    ]
    assert "Traceback" not in done.stderr


def test_a_missing_file_ends_the_run(tmp_path: Path) -> None:
    done = pomagent("run", "--config", str(tmp_path / "agent.toml"))
    assert done.returncode == INVALID
    assert str(tmp_path / "agent.toml") in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_bindable_ends_the_run_as_not_permitted(bastion: Bastion) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        taken = [server.getsockname()[1] for server in (one, other)]
        bastion.save({"echo": on(taken[0]), "banner": on(taken[1])})
        done = pomagent("run", "--config", str(bastion.path), STATE_DIRECTORY=str(bastion.directory / "state"))
    assert done.returncode == NOT_PERMITTED
    assert [event["route"] for event in _events(done.stderr, "route.quarantined")] == ["echo", "banner"]
    assert not _events(done.stderr, "agent.started")


# schema.


def test_the_schema_knows_every_key_of_the_example(tmp_path: Path) -> None:
    done = pomagent("schema")
    assert done.returncode == 0
    schema = json.loads(done.stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["additionalProperties"] is False
    for document in (_uncommented(REPOSITORY / "agent.toml"), tomllib.loads((REPOSITORY / "agent.toml").read_text())):
        assert list(_strangers(document, schema, schema)) == []


def test_the_schema_refuses_an_unknown_key() -> None:
    schema = json.loads(pomagent("schema").stdout)
    route = {"from": "db.example.test:5432", "listen": ANY, "colour": "red"}
    document = {"routes": [route], "agents": {}}
    assert list(_strangers(document, schema, schema)) == ["routes.colour", "agents"]


# help.


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_a_help_text(command: str) -> None:
    done = pomagent(*filter(None, [command]), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: pomagent")
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_the_help_names_every_command() -> None:
    done = pomagent("--help")
    for command in COMMANDS:
        assert re.search(rf"^  {command}  +\w", done.stdout, re.MULTILINE)


def test_an_unknown_command_is_a_usage_error() -> None:
    assert pomagent("rum").returncode == USAGE


# Secrets.

Output = Callable[[Bastion], str]


def _output(*arguments: str) -> Output:
    def run(bastion: Bastion) -> str:
        done = pomagent(*arguments, "--config", str(bastion.path), POMAGENT_AGENT__LOG_LEVEL="debug")
        return str(done.stdout + done.stderr)

    return run


def of_an_agent_in_trouble(bastion: Bastion) -> str:
    """Sessions, refusals, a rejected and an applied reload, a token that is refused and replaced."""
    agent = bastion.start({"echo": ANY, "down": ANY, "banner": ANY}, defaults={"warm": "tunnel"})
    agent.wait_for("tunnel.failed", route="down")
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    bastion.replace_token(bastion.gateway.forbidden_token)
    agent.wait_for("tunnel.failed", status=403)
    bastion.replace_token(f"{bastion.gateway.token} {bastion.gateway.token}")
    agent.wait_for("config.rejected")
    bastion.replace_token(bastion.gateway.token)
    agent.wait_for("config.applied", count=2)
    agent.stop()
    return agent.log


def of_tcp(bastion: Bastion) -> str:
    flags = gateway_flags(bastion.gateway, bastion.token_file)
    outputs = [
        pomagent("tcp", "echo.example.test:7000", "--listen", "-", *flags, stdin=b"hello\n"),
        pomagent("tcp", "down.example.test:7000", "--listen", "-", *flags),
    ]
    return "".join(done.stdout + done.stderr for done in outputs)


def of_a_token_in_the_wrong_place(bastion: Bastion) -> str:
    """Put the token where a path, a name or a URL belongs."""
    token = bastion.gateway.token
    outputs = []
    for table, key in (
        ("credentials.default", "service_account_file"),
        ("gateways.demo", "url"),
        ("agent", "log_format"),
    ):
        bastion.save({"echo": ANY}, **{table: {key: token}})
        outputs += [_output("check")(bastion), _output("check", "--json")(bastion), _output("run")(bastion)]
    return "".join(outputs)


@pytest.mark.parametrize(
    "output",
    [
        pytest.param(_output("check"), id="check"),
        pytest.param(_output("check", "--json"), id="check --json"),
        pytest.param(_output("probe"), id="probe"),
        pytest.param(_output("probe", "--json"), id="probe --json"),
        of_an_agent_in_trouble,
        of_tcp,
        of_a_token_in_the_wrong_place,
    ],
)  # fmt: skip
def test_no_part_of_a_token_is_in_any_output(bastion: Bastion, output: Output) -> None:
    bastion.save({"echo": ANY, "down": ANY})
    text = output(bastion)
    assert len(text) > 20
    for token in (bastion.gateway.token, bastion.gateway.forbidden_token):
        header, claims, signature = token.split(".")
        assert header[:12] not in text
        for part in (claims, signature):
            assert not any(part[start : start + 12] in text for start in range(len(part) - 12))


def test_no_token_is_on_the_command_line_or_in_the_environment_of_an_agent(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    for name in ("cmdline", "environ"):
        assert bastion.gateway.token.encode() not in Path(f"/proc/{agent.pid}/{name}").read_bytes()


def test_a_token_from_the_environment_is_used_and_shown_nowhere(bastion: Bastion) -> None:
    token = bastion.gateway.new_token()
    bastion.save({"echo": ANY})
    text = bastion.path.read_text().replace('service_account_file = "token"', 'env = "MY_TOKEN"')
    bastion.save_text(text)
    done = pomagent("probe", "--config", str(bastion.path), MY_TOKEN=token)
    assert done.returncode == 0
    wait_until(lambda: bastion.gateway.authorizer.checks[-1].token == token)
    assert token not in done.stdout + done.stderr
    assert os.environ.get("MY_TOKEN") is None


def _events(log: str, name: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [event for event in events if event["event"] == name]


def _uncommented(path: Path) -> dict[str, Any]:
    """The example with every key that it explains."""
    lines = (re.sub(r"^# (\[|\w+ = )", r"\1", line) for line in path.read_text().splitlines())
    return tomllib.loads("\n".join(lines))


def _strangers(value: Any, schema: dict[str, Any], root: dict[str, Any], name: str = "") -> Iterator[str]:
    """The dotted names of keys in the value that the schema does not know."""
    options = list(_options(schema, root))
    if isinstance(value, list):
        items = next((option["items"] for option in options if "items" in option), {})
        for entry in value:
            yield from _strangers(entry, items, root, name)
    elif isinstance(value, dict):
        table = next((option for option in options if option.get("type") == "object"), {})
        for key, entry in value.items():
            known = table.get("properties", {}).get(key) or _by_pattern(key, table)
            dotted = f"{name}.{key}".lstrip(".")
            if known is None:
                yield dotted
            else:
                yield from _strangers(entry, known, root, dotted)


def _by_pattern(key: str, table: dict[str, Any]) -> dict[str, Any] | None:
    return next(
        (known for pattern, known in table.get("patternProperties", {}).items() if re.match(pattern, key)), None
    )


def _options(schema: dict[str, Any], root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema itself and what it refers to."""
    yield schema
    if reference := schema.get("$ref"):
        yield from _options(root["$defs"][reference.rpartition("/")[2]], root)
    for option in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from _options(option, root)
