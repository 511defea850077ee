"""The hardened unit under a real systemd: start, reload, invalid files, journal."""

import json

from tests.booted.host import ECHO, UNIT, Host
from tests.support.agent.agent_process import connect
from tests.support.agent.bastion import on, refuses, say

OTHER = 5432
# Succeeds only if the port is open as soon as the unit is active.
FOLLOWER = f"""[Unit]
After={UNIT}
Requires={UNIT}
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 -c "import socket; socket.create_connection(('127.0.0.1', {ECHO}))"
"""


def test_enabled_agent_serves_before_and_after_a_reboot(host: Host) -> None:
    host.start()
    with connect(ECHO) as client:
        assert say(client) == b"hello\n"
    host.machine.reboot()
    assert host.shown("ActiveState") == "active", host.status
    with connect(ECHO) as client:
        assert say(client) == b"hello\n"


def test_unit_ordered_after_the_agent_finds_its_port_open(host: Host) -> None:
    host.machine.write("/etc/systemd/system/follower.service", FOLLOWER)
    host.systemctl("daemon-reload")
    host.save({"echo": on(ECHO)})
    host.systemctl("start", "follower.service")
    assert host.shown("ActiveState") == "active"


def test_reload_returns_when_the_edit_is_applied(host: Host) -> None:
    host.start()
    host.save({"echo": on(ECHO), "banner": on(OTHER)})
    host.systemctl("reload", UNIT)
    assert not refuses(OTHER)


def test_invalid_file_fails_the_reload_and_the_agent_keeps_serving(host: Host) -> None:
    host.start()
    host.save({"echo": "127.0.0.1:notaport"})
    assert host.systemctl("reload", UNIT, check=False).returncode != 0
    assert host.shown("ActiveState") == "active"
    assert "routes.echo.listen" in host.shown("StatusText")
    assert host.shown("StatusText") in host.status
    with connect(ECHO) as client:
        assert say(client) == b"hello\n"
    host.save({"echo": on(ECHO)})
    host.systemctl("reload", UNIT)
    assert "rejected" not in host.shown("StatusText")


def test_journal_entry_has_the_fields_of_an_event(host: Host) -> None:
    host.start()
    with connect(ECHO) as client:
        say(client)
    host.wait_for("session.closed", route="echo")
    (entry,) = host.journal("POMAGENT_EVENT=session.closed", "POMAGENT_ROUTE=echo")
    shown = {name: entry[name] for name in ("POMAGENT_REASON", "POMAGENT_BYTES_UP", "PRIORITY", "_TRANSPORT")}
    assert shown == {"POMAGENT_REASON": "finished", "POMAGENT_BYTES_UP": "6", "PRIORITY": "6", "_TRANSPORT": "journal"}
    line = json.loads(entry["MESSAGE"])
    assert (line["reason"], line["bytes_up"], line["bytes_down"]) == ("finished", 6, 6)


def test_journal_priority_is_the_level_of_an_event(host: Host) -> None:
    host.start()
    host.save_text("")
    host.systemctl("reload", UNIT, check=False)
    errors = [json.loads(line["MESSAGE"]) for line in host.journal("--priority=err", "_COMM=pomagent")]
    assert {event["event"] for event in errors} == {"config.rejected"}


def test_large_event_is_one_entry_of_the_journal(host: Host) -> None:
    """The event is larger than a datagram, and a line on standard error is limited to 48 KB."""
    host.start()
    host.save_text("[[routes]]\nlisten = 5\n" * 3000)
    host.systemctl("reload", UNIT, check=False)
    entries = host.journal("POMAGENT_EVENT=config.rejected")
    assert entries
    for entry in entries:  # two if the watch noticed the edit first
        assert len(json.loads(entry["POMAGENT_PROBLEMS"])) >= 3000
        assert entry["POMAGENT_PROBLEMS"] == json.dumps(json.loads(entry["MESSAGE"])["problems"])
        assert entry["_TRANSPORT"] == "journal"


def test_lines_go_to_standard_error_without_the_journals_socket(host: Host) -> None:
    host.drop_in("[Service]\nInaccessiblePaths=/run/systemd/journal/socket\n")
    host.start()
    (entry,) = [line for line in host.journal("_COMM=pomagent") if "agent.started" in line["MESSAGE"]]
    assert (entry["_TRANSPORT"], entry["PRIORITY"]) == ("stdout", "6")


def test_restarted_journal_misses_no_event(host: Host) -> None:
    host.start()
    host.systemctl("restart", "systemd-journald.service")
    host.systemctl("stop", UNIT)
    assert host.wait_for("agent.stopped")["signal"] == "SIGTERM"
    assert not host.events("log.dropped")


def test_invalid_file_at_boot_is_reported_once_and_the_unit_stays_down(host: Host) -> None:
    host.start()
    host.save_text("[[routes]]\nlisten = 5\n")
    host.machine.reboot()
    assert host.shown("ActiveState") == "failed"
    assert host.shown("ExecMainStatus") == "78"
    assert host.shown("NRestarts") == "0"
    (entry,) = host.journal("--boot", "POMAGENT_EVENT=config.rejected")  # attributed to the unit although it ended
    assert "routes" in entry["POMAGENT_PROBLEMS"]
    assert "configuration rejected: /etc/pomagent/agent.toml:" in host.shown("StatusText")
    assert host.shown("StatusText") in host.status
    host.save({"echo": on(ECHO)})
    host.systemctl("start", UNIT)
    with connect(ECHO) as client:
        assert say(client) == b"hello\n"
