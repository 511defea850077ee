"""The output of ``pomagent status`` for people, and its order with --watch."""

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


def test_routes_are_listed_in_file_order_with_reasons_below(capsys: pytest.CaptureFixture[str]) -> None:
    shown = lines(capsys, *_parts(document(route("b", "up"), route("a", "down", "503"))))
    assert shown[:2] == ["pomagent 1.2.3, pid 7, up 1 min 1 s", "/etc/agent.toml (abc), generation 3"]
    assert [line.split()[0] for line in shown[4:6]] == ["b", "a"]
    assert shown[-1] == "a: 503"


def test_gateways_that_should_use_http2_are_listed_with_their_transport(capsys: pytest.CaptureFixture[str]) -> None:
    spoken = [("old", "http1", "http2"), ("new", "http2", "http2"), ("far", None, "http2"), ("plain", "http1", "http1")]
    gateways = [{"name": name, "transport": used, "transport_wanted": wanted} for name, used, wanted in spoken]
    shown = lines(capsys, *_parts(document(gateways=gateways)))
    assert [line for line in shown if line.startswith(("old", "new", "far", "plain"))] == [
        "old: http1, because the gateway does not offer h2: half-closes are not relayed", "new: http2",
        "far: not dialled yet",
    ]  # fmt: skip


def test_watch_lists_the_worst_routes_first(capsys: pytest.CaptureFixture[str]) -> None:
    routes = [
        route("off", "disabled"), route("good", "up"), route("half", "degraded", "late"), route("bad", "denied", "403"),
        route("held", "paused", "resume it"), route("new", "a state of a later version"),
    ]  # fmt: skip
    shown = lines(capsys, *_watched(document(*routes)))
    assert shown[3:6] == ["bad: 403", "half: late", "held: resume it"]
    assert [line.split()[0] for line in shown[8:]] == ["bad", "half", "held", "new", "good", "off"]


def test_watch_reports_a_missing_agent_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, *_watched({"error": "no agent answers at /x"})) == ["no agent answers at /x"]


def test_drain_rejected_reload_and_old_processes_are_shown_first(capsys: pytest.CaptureFixture[str]) -> None:
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
def test_an_unexpected_warm_level_has_its_reason(
    capsys: pytest.CaptureFixture[str], pool: dict[str, str] | None, kept: str
) -> None:
    assert f"  {kept}  " in lines(capsys, *_parts(document(route("a", "up", pool=pool))))[4]
