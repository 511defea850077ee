"""What the agent is doing, as one document."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import greenlet

from pomagent import __version__
from pomagent.agent import Agent
from pomagent.credentials import Token
from pomagent.dial import Dialer
from pomagent.forwarder import Forwarder
from pomagent.gateway_watch import GatewayWatch
from pomagent.reload import Outcome, Reloader
from pomagent.settings import Route
from pomagent.status.states import route_state

Document = dict[str, Any]


def document(agent: Agent, reloader: Reloader, started_at: float, predecessors: Sequence[Document] = ()) -> Document:
    """The agent's state now; times are ISO 8601 in UTC."""
    settings = reloader.current
    routes = settings.routes if settings else ()
    return {
        "version": __version__,
        "pid": os.getpid(),
        "started_at": _iso(started_at),
        "uptime_s": round(time.time() - started_at, 3),
        "generation": agent.generation,
        "config": config_document(reloader),
        "last_reload": _reload(reloader.last),
        "sessions": agent.sessions,
        "old_processes": list(predecessors),
        "routes": [_route(route, agent) for route in routes],
        "gateways": [
            _gateway(dialer, agent.gateways.watch(dialer.gateway))
            for dialer in sorted(agent.gateways.dialers, key=lambda dialer: dialer.gateway.name)
        ],
        "credentials": [_credential(token) for token in sorted(agent.tokens, key=lambda token: token.credential.name)],
        "process": {"descriptors": _descriptors(), "greenlets_since_start": _greenlets()},
    }


def config_document(reloader: Reloader) -> Document:
    """Which file the agent runs on, and which version of it; empty before it runs."""
    settings = reloader.current
    return {"path": str(settings.path), "sha": settings.sha} if settings else {}


def reload_document(outcome: Outcome) -> Document:
    """What a reload, or a preview of one, came to."""
    plan = outcome.plan
    return {
        "result": outcome.result,
        "at": _iso(outcome.at),
        "problems": list(map(str, outcome.problems)),
        "started": [route.name for route in plan.started],
        "replaced": [replaced.new.name for replaced in plan.replaced],
        "stopped": [route.name for route in plan.stopped],
        "kept": len(plan.kept),
        "changes": [
            {"key": change.key, "apply": change.apply, "before": change.before, "after": change.after}
            for change in outcome.changes
        ],
    }


def _reload(outcome: Outcome | None) -> Document | None:
    if outcome is None:
        return None
    return {"result": outcome.result, "at": _iso(outcome.at), "problems": list(map(str, outcome.problems))}


def _route(route: Route, agent: Agent) -> Document:
    forwarder = agent.forwarder(route.name)
    how = route_state(route, agent)
    return {
        "name": route.name,
        "listen": str(agent.listen_address(route.name) if forwarder else route.listen),
        "destination": str(route.destination),
        "gateway": str(route.gateway.address),
        "protocol": forwarder.memory.warmth.protocol if forwarder else route.protocol,
        "state": how.state,
        "reason": how.reason,
        "keeps_warm": forwarder.pool.keeping.level if forwarder else route.warm,
        "pool": _pool(forwarder) if forwarder else None,
        "warm": forwarder.pool.warm if forwarder else 0,
        "target": forwarder.pool.target if forwarder else 0,
        "waiting": forwarder.pool.waiting if forwarder else 0,
        "sessions": forwarder.sessions if forwarder else 0,
    }


def _pool(forwarder: Forwarder) -> Document:
    """What the route keeps warm and why, and what has become of its dials; counters never go back."""
    pool, memory = forwarder.pool, forwarder.memory
    found = memory.periods.found
    return {
        "level": pool.keeping.level,
        "why": pool.keeping.why.value,
        "warm": pool.stock,
        "dialling": pool.dialling,
        "takes": dict(memory.takes),
        "refusals": dict(memory.refusals),
        "discards": dict(memory.discards),
        "failures": dict(memory.failures),
        "breaker": {
            "state": pool.breaker.value,
            "failures": pool.failures,
            "retry_in_s": round(pool.retry_in_s, 3),
        },
        "period": {"kind": found.kind, "seconds": round(found.seconds, 1), "says": str(found)} if found else None,
    }


def _gateway(dialer: Dialer, watch: GatewayWatch) -> Document:
    expires_at = watch.certificate_expires_at
    return {
        "name": dialer.gateway.name,
        "address": str(dialer.gateway.address),
        "handshakes": dialer.gate.under_way,
        "handshakes_waiting": dialer.gate.waiting,
        "max_dials": dialer.gateway.max_dials,
        "tunnels_lost": watch.losses.total,
        "addresses_avoided": dialer.avoided,
        "certificate_expires": None if expires_at is None else _iso(expires_at),
    }


def _credential(token: Token) -> Document:
    expires_at = token.life.expires_at
    return {
        "name": token.credential.name,
        "source": token.credential.source,
        "has_token": token.value is not None,
        "expires_at": None if expires_at is None else _iso(expires_at),
        "problem": token.problem,
        "note": "systemd copies it at start: rotating it needs a restart"
        if token.credential.source == "systemd_credential" else "",
    }  # fmt: skip


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _greenlets() -> int:
    """How many greenlets live that came after the start: with the descriptors, what a leak would show in.

    Those of the start are frozen out of sight of the collector (see ``service``).
    """
    return sum(isinstance(thing, greenlet.greenlet) and not thing.dead for thing in gc.get_objects())
