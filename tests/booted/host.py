"""A booted host with the agent: configuration, unit, journal and ports."""

import json
from typing import Any

from tests.booted.machine import Machine
from tests.gateway.agent_toml import Listen, Table, agent_toml
from tests.gateway.facade import Gateway
from tests.gateway.waiting import wait_until
from tests.support.agent.bastion import on
from tests.support.agent.event_log import Event

UNIT = "pomagent.service"
AGENT_TOML = "/etc/pomagent/agent.toml"
ECHO = 6379
"""Port of the echo route. The network belongs to the test, so every port is free."""
BUSY: dict[str, Any] = {
    "echo": {"listen": on(ECHO), "protocol": "generic", "pool_min": 4, "pool_max": 16, "max_sessions": 2000}
}
"""Routes for a load on a slow machine."""


class Host:
    """An operator's view of the host."""

    def __init__(self, machine: Machine, gateway: Gateway) -> None:
        self.machine = machine
        self.gateway = gateway
        self._give("/etc/pomagent/token", f"{gateway.token}\n", 0o640)
        self._give("/etc/pomagent/ca.pem", gateway.ca_file.read_text(), 0o644)

    def save(self, routes: Listen, **tables: Table) -> None:
        """Replace agent.toml; ``routes`` and ``tables`` as in ``write_agent_toml``."""
        edge = {"ca_file": "ca.pem", **tables.pop("gateways.demo", {})}
        self.save_text(agent_toml(self.gateway, routes, **{"gateways.demo": edge, **tables}))

    def save_text(self, text: str) -> None:
        self._give(AGENT_TOML, text, 0o640)

    def drop_in(self, text: str, unit: str = UNIT) -> None:
        """Write a drop-in for a unit and reload systemd, as ``systemctl edit`` does."""
        self.machine.write(f"/etc/systemd/system/{unit}.d/test.conf", text)
        self.systemctl("daemon-reload")

    def start(self, routes: Listen | None = None, **tables: Table) -> None:
        """Enable and start the agent with these routes. Blocks until the unit is active."""
        self.save(routes or {"echo": on(ECHO)}, **tables)
        self.systemctl("enable", "--now", UNIT)

    def systemctl(self, *arguments: str, check: bool = True) -> Any:
        return self.machine.run("systemctl", *arguments, check=check)

    def pomagent(self, *arguments: str, check: bool = True) -> Any:
        """Run a command of the installed agent as root."""
        return self.machine.run("pomagent", *arguments, check=check)

    def shown(self, name: str, unit: str = UNIT) -> str:
        """Return a property of a unit."""
        return str(self.systemctl("show", "--value", f"--property={name}", unit).stdout.strip())

    @property
    def status(self) -> str:
        """The output of ``systemctl status``."""
        return str(self.systemctl("status", "--no-pager", "--full", UNIT, check=False).stdout)

    @property
    def main_pid(self) -> int:
        """The agent's PID inside the machine."""
        return int(self.shown("MainPID"))

    def kill(self, signal: str, pid: int) -> None:
        self.machine.run("sh", "-c", f"kill -s {signal} {pid}")

    def events(self, name: str = "", **fields: object) -> list[Event]:
        """Return the agent's events in the journal with that name and these fields, oldest first."""
        messages = [line.get("MESSAGE") for line in self.journal()]
        found = [json.loads(text) for text in messages if isinstance(text, str) and text.startswith("{")]
        return [event for event in found if _matches(event, name, fields)]

    def journal(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the unit's journal entries as ``journalctl -o json`` shows them, oldest first."""
        self.machine.run("journalctl", "--sync")
        shown = self.machine.run("journalctl", f"--unit={UNIT}", "--output=json", "--all", "--no-pager", *arguments)
        return [json.loads(line) for line in shown.stdout.splitlines()]

    def wait_for(self, name: str, **fields: object) -> Event:
        """Wait for the first such event and return it. Blocks."""
        try:
            return wait_until(lambda: self.events(name, **fields), 20)[0]
        except AssertionError as error:
            raise AssertionError(f"no {name} {fields}\n{self.status}") from error

    def _give(self, path: str, text: str, mode: int) -> None:
        """Write a file that belongs to root and the agent's group."""
        self.machine.write(path, text, mode, group="pomagent")


def _matches(event: Event, name: str, fields: dict[str, object]) -> bool:
    return name in ("", event["event"]) and all(event.get(key) == value for key, value in fields.items())
