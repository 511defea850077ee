"""``pomagent diag``: a support archive without secrets."""

import json
import stat
import tarfile
import tomllib
from pathlib import Path

from tests.gateway import minted
from tests.gateway.agent_toml import write_token
from tests.support.agent.agent_process import connect, pomagent
from tests.support.agent.bastion import ANY, Bastion, say

ALWAYS = {"README.txt", "check.txt", "versions.json"}
OF_AN_AGENT = {"status.json", "events.jsonl", "greenlets.txt", "configuration/00-agent.toml"}


def unpacked(archive: Path) -> dict[str, str]:
    """Return the texts by name, without their common directory."""
    with tarfile.open(archive) as files:
        (top,) = {Path(name).parts[0] for name in files.getnames()}
        assert top.startswith("pomagent-diag-")
        return {
            name.removeprefix(f"{top}/"): file.read().decode()
            for name in files.getnames()
            if (file := files.extractfile(name)) is not None
        }


def test_the_archive_has_every_part(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY, "down": ANY}, defaults={"warm": "tunnel"})
    agent.wait_for("breaker.opened", route="down")
    archive = bastion.directory / "diag.tar.gz"
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        done = agent.command("diag", "--output", str(archive))
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{archive}\n", "")
        assert say(client) == b"hello\n"
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    files = unpacked(archive)
    assert set(files) == ALWAYS | OF_AN_AGENT
    states = {route["name"]: route["state"] for route in json.loads(files["status.json"])["routes"]}
    assert states == {"echo": "up", "down": "down"}
    events = [json.loads(line) for line in files["events.jsonl"].splitlines()]
    assert "breaker.opened" in {event["event"] for event in events}
    assert json.loads(files["versions.json"])["libraries"]["gevent"]
    assert "valid: 2 routes" in files["check.txt"]
    routes = tomllib.loads(files["configuration/00-agent.toml"])["routes"]
    assert [route["name"] for route in routes] == ["echo", "down"]
    waiting = [line for line in files["greenlets.txt"].splitlines() if not line.startswith(" ")]
    names = " ".join(waiting)
    assert "listener" in names  # made at the start, and so out of the collector's sight
    assert "session" in names
    assert "thread" in names


def test_the_archive_has_no_secret(bastion: Bastion) -> None:
    token = bastion.gateway.token
    agent = bastion.start({"echo": ANY}, defaults={"warm": "tunnel"})
    agent.wait_for("pool.filled")
    text = bastion.path.read_text().replace("[status]", f'# {token}\n[status]\nlisen = "{token}"')
    bastion.save_text(f'{text}\npassword = "{token}"\n')
    agent.wait_for("config.rejected")
    archive = bastion.directory / "diag.tar.gz"
    assert agent.command("diag", "-o", str(archive)).returncode == 0
    files = unpacked(archive)
    assert [name for name, text in files.items() if minted.is_in(text)] == []
    assert "lisen" in files["check.txt"]  # of the file as it is now
    assert bastion.token_file.read_text() not in str(files)


def test_an_existing_file_is_not_overwritten(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    there = bastion.directory / "there"
    there.write_text("precious")
    done = agent.command("diag", "--output", str(there))
    assert (done.returncode, there.read_text()) == (74, "precious")
    assert "--output" in done.stderr
    done = agent.command("diag", "--output", str(bastion.directory / "no" / "such" / "directory"))
    assert (done.returncode, "cannot write" in done.stderr) == (74, True)


def test_without_an_agent_the_archive_has_the_file_and_the_reason(bastion: Bastion, tmp_path: Path) -> None:
    path = bastion.save({"echo": ANY})
    write_token(bastion.token_file, bastion.gateway.token)
    archive = tmp_path / "diag.tar.gz"
    place = {"POMAGENT_STATUS__CONTROL_SOCKET": str(tmp_path / "none.sock")}
    done = pomagent("diag", "--config", str(path), "--output", str(archive), **place)
    assert done.returncode == 0, done.stderr
    assert "no agent answers" in done.stderr
    files = unpacked(archive)
    assert set(files) == ALWAYS | {"configuration/00-agent.toml"}
    assert "no agent answers" in files["README.txt"]
    assert [name for name, text in files.items() if minted.is_in(text)] == []
    path.write_text("[[routes")
    broken = tmp_path / "broken.tar.gz"
    assert pomagent("diag", "--config", str(path), "--output", str(broken), **place).returncode == 0
    assert "not valid TOML" in unpacked(broken)["check.txt"]
