"""Each fault of docs/troubleshooting.md, made with the real gateway: the agent names its cause and its remedy."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import tokens
from tests.gateway.certificates import Authority
from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import wait_until
from tests.support.agent import clock
from tests.support.agent.agent_process import AgentProcess, connect
from tests.support.agent.bastion import ANY, Bastion, on, say
from tests.support.inspection.scrape import ask

DOCUMENT = Path(__file__).parents[2] / "docs/troubleshooting.md"
ROW = re.compile(r"^\| ([^|`]+) \| `(\w+)` \| `(.+)` \|$", re.MULTILINE)
PLACEHOLDER = re.compile(r"\b(DESTINATION|GATEWAY|ADDRESS|DETAIL|NAME|AGE|HOST|CAUSE|PROCESS|COUNT|TIME|LOCATION)\b")
ROWS = {fault: (state, sentence.replace("``", "`")) for fault, state, sentence in ROW.findall(DOCUMENT.read_text())}
WARM: dict[str, Any] = {"listen": ANY, "warm": "tunnel"}


class Scene:
    """A bastion host with a fault."""

    def __init__(self, bastion: Bastion, keep: ExitStack) -> None:
        self.bastion = bastion
        self.gateway = bastion.gateway
        self.keep = keep
        self.values = {"GATEWAY": f"{self.gateway.host}:{self.gateway.port}", "NAME": "default"}

    def start(
        self, route: str = "echo", environment: dict[str, str] | None = None, **tables: Any
    ) -> tuple[AgentProcess, str]:
        """Start an agent with one route that keeps a tunnel warm, and return the route's name."""
        self.values["DESTINATION"] = route if ":" in route else f"{route}.example.test:7000"
        agent = self.bastion.start({route: WARM}, environment, status={"listen": ANY}, **tables)
        return agent, route.replace(":", "-")

    def fill(self, agent: AgentProcess) -> None:
        """Connect a client that takes the last place and one that gets none."""
        holder = self.keep.enter_context(connect(agent.port("echo")))
        assert say(holder) == b"hello\n"
        with pytest.raises(ConnectionResetError), connect(agent.port("echo")) as other:
            other.recv(1)


Fault = Callable[[Scene], tuple[AgentProcess, str]]


def expired(scene: Scene) -> tuple[AgentProcess, str]:
    scene.bastion.replace_token(tokens.mint(expires_in_s=-2 * 3600 - 60))
    scene.values["AGE"] = "2 hours"
    return scene.start()


def revoked(scene: Scene) -> tuple[AgentProcess, str]:
    scene.bastion.replace_token(tokens.mint())
    return scene.start()


def denied(scene: Scene) -> tuple[AgentProcess, str]:
    scene.bastion.replace_token(scene.gateway.forbidden_token)
    return scene.start()


def in_front(scene: Scene) -> tuple[AgentProcess, str]:
    scene.gateway.authorizer.refuse(302, {"location": "https://down.example.com/page?token=x"})
    scene.values["LOCATION"] = "https://down.example.com/page"
    return scene.start()


def unknown(scene: Scene) -> tuple[AgentProcess, str]:
    return scene.start("nothing.example.test:7000")


def gateway_down(scene: Scene) -> tuple[AgentProcess, str]:
    scene.gateway.edge.stop()
    scene.values["ADDRESS"] = scene.gateway.connect_to
    return scene.start()


def no_name(scene: Scene) -> tuple[AgentProcess, str]:
    scene.values["HOST"] = scene.gateway.host
    return scene.start(**{"gateways.demo": {"connect_to": None}})


def no_trust(scene: Scene) -> tuple[AgentProcess, str]:
    stranger = Authority(scene.bastion.directory, "stranger")
    return scene.start(**{"gateways.demo": {"ca_file": str(stranger.ca_file)}})


def destination_down(scene: Scene) -> tuple[AgentProcess, str]:
    return scene.start("down")


def port_taken(scene: Scene) -> tuple[AgentProcess, str]:
    port = scene.keep.enter_context(socket.create_server((LOOPBACK, 0))).getsockname()[1]
    scene.values["ADDRESS"] = on(port)
    agent = scene.bastion.start({"echo": ANY, "page": on(port)}, status={"listen": ANY})
    agent.wait_for("listener.bind_failed", route="page")  # the next try still names the owner
    return agent, "page"


def route_full(scene: Scene) -> tuple[AgentProcess, str]:
    scene.values["COUNT"] = "1"
    agent, route = scene.start(defaults={"max_sessions": 1})
    scene.fill(agent)
    return agent, route


def agent_full(scene: Scene) -> tuple[AgentProcess, str]:
    scene.values["COUNT"] = "1"
    agent, route = scene.start(agent={"max_sessions": 1})
    scene.fill(agent)
    return agent, route


def clock_behind(scene: Scene) -> tuple[AgentProcess, str]:
    return scene.start(environment=clock.shifted("-400d"))


def clock_ahead(scene: Scene) -> tuple[AgentProcess, str]:
    scene.bastion.replace_token(tokens.mint())
    scene.values["AGE"] = "1 hour"
    return scene.start(environment=clock.shifted("+119m"))


FAULTS: dict[str, Fault] = {
    "the token has expired": expired,
    "the token was revoked, or is of another cluster": revoked,
    "the policy denies access": denied,
    "something in front of the gateway answers in its place": in_front,
    "the gateway does not know the route": unknown,
    "the gateway is down": gateway_down,
    "the gateway's name leads nowhere": no_name,
    "the gateway's certificate is of an authority that is not trusted": no_trust,
    "the destination is down": destination_down,
    "the local port is taken": port_taken,
    "the route's limit is reached": route_full,
    "the agent's limit is reached": agent_full,
    "the clock is off, and certificates fail": clock_behind,
    "the clock is off, and tokens are refused": clock_ahead,
}


@pytest.fixture
def scene(bastion: Bastion) -> Iterator[Scene]:
    with ExitStack() as keep:
        yield Scene(bastion, keep)


def test_document_has_a_row_for_each_fault() -> None:
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")][2:]
    assert (len(lines), set(ROWS)) == (len(ROWS), set(FAULTS))


@pytest.mark.parametrize("fault", ROWS)
def test_status_names_the_fault_and_its_remedy(scene: Scene, fault: str) -> None:
    state, sentence = ROWS[fault]
    agent, route = FAULTS[fault](scene)
    port = int(agent.wait_for("listener.bound", serves="status")["listen"].rpartition(":")[2])

    def shown() -> tuple[int, str]:
        answer = ask(port, f"/readyz/{route}")
        return answer.status, answer.text

    wait_until(lambda: shown()[1].startswith(f"{state}: "), what=state)
    status, text = shown()
    said = text.removeprefix(f"{state}: ").strip()
    assert status == 503
    assert pattern(sentence, scene.values).fullmatch(said), f"{said}\nis not\n{sentence}"
    (told,) = [each for each in agent.status()["routes"] if each["name"] == route]
    assert (told["state"], pattern(sentence, scene.values).fullmatch(told["reason"]) is not None) == (state, True)
    table = " ".join(agent.command("status").stdout.split())
    assert pattern(sentence, scene.values).search(table), table


def pattern(sentence: str, values: dict[str, str]) -> re.Pattern[str]:
    """Return a pattern for the sentence of a row, with its placeholders filled in or open."""
    parts = PLACEHOLDER.split(sentence)
    filled = [re.escape(values[part]) if part in values else ".+" for part in parts[1::2]]
    literal = [re.escape(part) for part in parts[::2]]
    return re.compile("".join(part for pair in zip(literal, [*filled, ""], strict=True) for part in pair))


def test_wrong_clock_is_reported_before_anything_fails(scene: Scene) -> None:
    agent, _ = scene.start(environment=clock.shifted("+1h"))
    said = agent.wait_for("clock.drifted")
    assert (said["level"], round(said["offset_ms"] / 60_000)) == ("warning", -60)
    (gateway,) = agent.status()["gateways"]
    assert round(gateway["clock_offset_s"] / 60) == -60


def test_released_place_ends_the_shortage(scene: Scene) -> None:
    agent, route = route_full(scene)
    port = int(agent.wait_for("listener.bound", serves="status")["listen"].rpartition(":")[2])
    assert ask(port, f"/readyz/{route}").status == 503
    scene.keep.close()
    wait_until(lambda: ask(port, f"/readyz/{route}").status == 200)
