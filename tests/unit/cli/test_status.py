"""What ``pomagent status`` shows people, and in which order while they watch."""

from __future__ import annotations

from typing import Any

import pytest

from pomagent.cli import tables
from pomagent.cli.status import _parts, _watched

POOL = {"level": "tunnel", "why": "port"}


def route(name: str, state: str, reason: str = "", **more: Any) -> dict[str, Any]:
    return {
        "name": name, "listen": "127.0.0.1:1", "state": state, "reason": reason, "pool": POOL, "warm": 1, "target": 2,
        "sessions": 0, "destination": f"{name}.example.com:1", **more,
    }  # fmt: skip


def document(*routes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "version": "1.2.3", "pid": 7, "uptime_s": 61.0, "config": {"path": "/etc/agent.toml", "sha": "abc"},
        "generation": 3, "last_reload": None, "routes": list(routes), "gateways": [], **more,
    }  # fmt: skip


def lines(capsys: pytest.CaptureFixture[str], *parts: Any) -> list[str]:
    tables.show(*parts)
    return capsys.readouterr().out.splitlines()


def test_the_table_has_the_order_of_the_file_and_reasons_come_below(capsys: pytest.CaptureFixture[str]) -> None:
    shown = lines(capsys, *_parts(document(route("b", "up"), route("a", "down", "503"))))
    assert shown[:2] == ["pomagent 1.2.3, pid 7, up 1 min 1 s", "/etc/agent.toml (abc), generation 3"]
    assert [line.split()[0] for line in shown[4:6]] == ["b", "a"]
    assert shown[-1] == "a: 503"


def test_a_gateway_that_should_speak_http2_and_does_not_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    spoken = [("old", "http1", "http2"), ("new", "http2", "http2"), ("far", None, "http2"), ("plain", "http1", "http1")]
    gateways = [{"name": name, "transport": used, "transport_wanted": wanted} for name, used, wanted in spoken]
    shown = lines(capsys, *_parts(document(gateways=gateways)))
    assert [line for line in shown if line.startswith(("old", "new", "far", "plain"))] == [
        "old: http1, since the gateway does not offer h2: half-closes are not carried", "new: http2",
        "far: not dialled yet",
    ]  # fmt: skip


def test_whoever_watches_sees_what_is_wrong_first(capsys: pytest.CaptureFixture[str]) -> None:
    routes = [
        route("off", "disabled"), route("good", "up"), route("half", "degraded", "late"), route("bad", "denied", "403"),
        route("held", "paused", "resume it"), route("new", "a state of a later version"),
    ]  # fmt: skip
    shown = lines(capsys, *_watched(document(*routes)))
    assert shown[3:6] == ["bad: 403", "half: late", "held: resume it"]
    assert [line.split()[0] for line in shown[8:]] == ["bad", "half", "held", "new", "good", "off"]


def test_an_agent_that_has_gone_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, *_watched({"error": "no agent answers at /x"})) == ["no agent answers at /x"]


def test_a_rejected_reload_old_processes_and_a_drain_are_said_above(capsys: pytest.CaptureFixture[str]) -> None:
    rejected = {"at": "2026-01-01T00:00:00Z", "result": "rejected", "problems": ["agent.toml:3: no"]}
    old = [{"pid": 5, "version": "1.2.2", "sessions": 1}]
    shown = lines(capsys, *_parts(document(last_reload=rejected, old_processes=old, is_draining=True)))
    assert shown[0].endswith(", draining")
    assert shown[2:5] == [
        "last reload 2026-01-01T00:00:00Z: rejected", "  agent.toml:3: no",
        "old process 5, pomagent 1.2.2: 1 session left",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pool", "kept"),
    [(None, "-"), ({"level": "tls", "why": "port"}, "tls"), ({"level": "tls", "why": "demoted"}, "tls (demoted)")],
)
def test_what_is_kept_warm_has_its_reason_where_it_is_a_surprise(
    capsys: pytest.CaptureFixture[str], pool: dict[str, str] | None, kept: str
) -> None:
    assert f"  {kept}  " in lines(capsys, *_parts(document(route("a", "up", pool=pool))))[4]
