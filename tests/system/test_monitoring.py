"""docs/monitoring against real metrics, in a real Prometheus."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.facade import Gateway
from tests.gateway.waiting import wait_until
from tests.support.agent import processes
from tests.support.agent.agent_process import AgentProcess, connect
from tests.support.agent.bastion import ANY, Bastion, say
from tests.support.inspection.prometheus import Prometheus
from tests.support.inspection.scrape import ask

ROOT = Path(__file__).parents[2]
HERE = ROOT / "docs/monitoring"
RULES = HERE / "pomagent.rules.yml"
TESTS = HERE / "pomagent.rules.test.yml"
DASHBOARD = HERE / "pomagent.dashboard.json"
NAME = re.compile(r"\b(?:pomagent|process)_[a-z_]+\b")
ALERT = re.compile(r"alert: (\w+)")
STATUS = {"listen": ANY}


def port_of(agent: AgentProcess) -> int:
    return int(agent.wait_for("listener.bound", serves="status")["listen"].rpartition(":")[2])


def promtool(*arguments: str) -> Any:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    return processes.run([program, *arguments], capture_output=True, text=True, cwd=HERE)


def expressions() -> list[str]:
    """Return every query of the dashboard."""
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [note["expr"] for note in dashboard["annotations"]["list"]]
    return asked + [variable.get("definition", "") for variable in dashboard["templating"]["list"]]


def test_prometheus_accepts_the_rules_and_each_alert_fires_as_specified() -> None:
    for command in (("check", "rules", RULES.name), ("test", "rules", TESTS.name)):
        done = promtool(*command)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tested_and_explained() -> None:
    alerts = ALERT.findall(RULES.read_text())
    assert len(alerts) == len(set(alerts)) > 10
    assert alerts == re.findall(r"- eval_time: .*\n\s+alertname: (\w+)", TESTS.read_text())
    rows = [line for line in (HERE / "README.md").read_text().splitlines() if line.startswith("| `")]
    assert alerts == [name for row in rows for name in re.findall(r"`(Pomagent\w+)`", row)]


def test_prometheus_accepts_every_query_of_the_dashboard(tmp_path: Path) -> None:
    asked = [text for text in expressions() if text and not text.startswith("label_values")]
    ready = [text.replace("$__rate_interval", "5m").replace("$__interval", "5m") for text in asked]
    rules = {"groups": [{"name": "asked", "rules": [{"record": f"r{i}", "expr": e} for i, e in enumerate(ready)]}]}
    (tmp_path / "asked.yml").write_text(json.dumps(rules))
    done = promtool("check", "rules", "--lint=none", str(tmp_path / "asked.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ready)} rules found" in done.stdout


def test_every_queried_metric_exists_and_every_metric_is_documented(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY, "down": {"listen": ANY, "warm": "tunnel"}}, status=STATUS)
    agent.wait_for("tunnel.failed", route="down")
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        text = ask(port_of(agent), "/metrics").text
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    known = set(kinds) | {f"{name}{end}" for name in kinds for end in ("_bucket", "_sum", "_count")}
    asked = "\n".join([*expressions(), *re.findall(r"expr: (.*)", RULES.read_text())])
    assert set(NAME.findall(asked)) - known == set()
    assert {name for name in kinds if name.startswith("pomagent_")} - set(
        re.findall(r"`(pomagent_\w+)", (ROOT / "README.md").read_text())
    ) == set()
    assert set(re.findall(r'phase="(\w+)"', text)) == {"dns", "tcp", "tls", "connect"}
    assert 'pomagent_connect_answers_total{code="200",gateway="' in text
    assert 'pomagent_connect_answers_total{code="503",gateway="' in text


def test_prometheus_sees_a_gateway_fail_and_recover(bastion: Bastion, gateway: Gateway, tmp_path: Path) -> None:
    agent = bastion.start({"echo": {"listen": ANY, "warm": "tunnel"}}, status=STATUS)
    agent.wait_for("pool.filled")
    at_once = re.sub(r"for: \d+m", "for: 0s", RULES.read_text())
    with Prometheus(tmp_path, port_of(agent), at_once) as prometheus:
        prometheus.wait_for('pomagent_route_ready{route="echo"}', 1)
        prometheus.wait_for('up{job="pomagent"}', 1)
        wait_until(lambda: "PomagentGatewayUnreachable" not in prometheus.alerts(), 30)
        gateway.edge.kill()
        wait_until(lambda: prometheus.alerts().get("PomagentGatewayUnreachable") == "firing", 60)
        wait_until(lambda: prometheus.alerts().get("PomagentRouteFails") == "firing", 60)
        gateway.edge.start()
        wait_until(lambda: not {"PomagentGatewayUnreachable", "PomagentRouteFails"} & set(prometheus.alerts()), 90)
