"""Builds the JSON documents that describe the running agent."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pomagent import __version__
from pomagent.admin.json_object import JsonObject
from pomagent.admin.status.batches import in_batches
from pomagent.admin.status.greenlet_count import count_greenlets
from pomagent.admin.status.route_states import RouteStatus, route_status
from pomagent.agent import Agent
from pomagent.credentials.token import Token
from pomagent.forwarder import Forwarder
from pomagent.gateway.dialer import Dialer
from pomagent.log.recent import Note
from pomagent.reload.outcome import Outcome
from pomagent.reload.reloader import Reloader
from pomagent.sessions.facts import SessionFacts
from pomagent.settings import Route


def status_document(
    agent: Agent, reloader: Reloader, started_at: float, old_processes: Sequence[JsonObject] = (),
    give_way: Callable[[], None] = lambda: None,
) -> JsonObject:  # fmt: skip
    """Return the agent's state. Times are ISO 8601 in UTC. Blocks only in ``give_way``, which lets others run."""
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
        "sessions": agent.session_count,
        "old_processes": list(old_processes),
        "routes": [_route(route, agent) for route in in_batches(routes, give_way)],
        "gateways": [
            _gateway(dialer, agent) for dialer in sorted(agent.gateways.dialers, key=lambda dialer: dialer.gateway.name)
        ],
        "credentials": [_credential(token) for token in sorted(agent.tokens, key=lambda token: token.credential.name)],
        "process": {"descriptors": _descriptors(), "greenlets_since_start": count_greenlets(give_way)},
    }


def sessions_document(
    agent: Agent, limit: int, old_processes: Sequence[JsonObject] = (), give_way: Callable[[], None] = lambda: None
) -> JsonObject:
    """Return the newest running sessions, and how many run in total. Blocks only in ``give_way``."""
    running = sorted(agent.running_sessions(), key=lambda pair: -pair[1].number)
    return {
        "total": len(running),
        "old_processes": list(old_processes),
        "sessions": [_session(route, facts) for route, facts in in_batches(running[:limit], give_way)],
    }


def _session(route: str, facts: SessionFacts) -> JsonObject:
    return {
        "session": facts.number,
        "route": route,
        "peer": facts.peer,
        "uid": facts.uid,
        "user": facts.user,
        "age_s": round(facts.age_s, 3),
        "idle_s": None if facts.idle_s is None else round(facts.idle_s, 3),
        "waited_ms": facts.waited_ms,
        "bytes_up": facts.bytes_up,
        "bytes_down": facts.bytes_down,
        "warm": facts.was_warm,
        "request_id": facts.request_id,
    }


def readiness_document(status: RouteStatus) -> JsonObject:
    """Return whether one route is ready, and why not."""
    return {"name": status.name, "state": status.state, "reason": status.reason, "is_ready": status.is_ready}


def event_document(note: Note) -> JsonObject:
    """Return a notable log event. Values without a JSON form become text."""
    fields = {name: value for name, value in note.fields.items() if name != "event"}
    return {
        "event": note.fields["event"], "level": note.level, "at": _iso(note.at), "count": note.count,
        "fields": json.loads(json.dumps(fields, default=str)),
    }  # fmt: skip


def config_document(reloader: Reloader) -> JsonObject:
    """Return the path and hash of the configuration in effect, or nothing before the start."""
    settings = reloader.current
    return {"path": str(settings.path), "sha": settings.sha} if settings else {}


def reload_document(outcome: Outcome) -> JsonObject:
    """Return the outcome of a reload or of its preview."""
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


def _reload(outcome: Outcome | None) -> JsonObject | None:
    if outcome is None:
        return None
    return {"result": outcome.result, "at": _iso(outcome.at), "problems": list(map(str, outcome.problems))}


def _route(route: Route, agent: Agent) -> JsonObject:
    forwarder = agent.forwarder(route.name)
    status = route_status(route, agent)
    return {
        "name": route.name,
        "description": route.description,
        "tags": list(route.tags),
        "listen": str(agent.listen_address(route.name) if forwarder else route.listen),
        "destination": str(route.destination),
        "gateway": str(route.gateway.address),
        "protocol": forwarder.history.policy.protocol if forwarder else route.protocol,
        "state": status.state,
        "reason": status.reason,
        "is_ready": status.is_ready,
        "keeps_warm": forwarder.pool.warm_target.level if forwarder else route.warm,
        "pool": _pool(forwarder) if forwarder else None,
        "warm": forwarder.pool.warm_count if forwarder else 0,
        "target": forwarder.pool.target_count if forwarder else 0,
        "waiting": forwarder.pool.waiting_count if forwarder else 0,
        "sessions": forwarder.session_count if forwarder else 0,
        "traffic": _traffic(forwarder) if forwarder else None,
    }


def _traffic(forwarder: Forwarder) -> JsonObject:
    """Return counters since the route was started. They never decrease."""
    counts = forwarder.counts
    moved_up, moved_down = forwarder.moved
    return {
        "bytes_up": counts.bytes_up + moved_up,
        "bytes_down": counts.bytes_down + moved_down,
        "leases": counts.leases,
        "waited_ms": counts.waited_ms,
        "closed": sum(counts.closed.values()),
        "refused": dict(counts.refused),
    }


def _pool(forwarder: Forwarder) -> JsonObject:
    """Return what the route keeps warm and why, and the outcomes of its dials. Counters never decrease."""
    pool, history = forwarder.pool, forwarder.history
    found = history.hidden_timeouts.found
    return {
        "level": pool.warm_target.level,
        "why": pool.warm_target.reason.value,
        "warm": pool.status.warm_by_level,
        "dialling": pool.status.dials,
        "takes": dict(history.leases),
        "refusals": dict(history.refusals),
        "discards": dict(history.discards),
        "failures": dict(history.failures),
        "breaker": {
            "state": pool.status.breaker.value,
            "failures": pool.status.failure_count,
            "retry_in_s": round(pool.status.retry_in_s, 3),
        },
        "period": {"kind": found.kind, "seconds": round(found.seconds, 1), "says": str(found)} if found else None,
    }


def _gateway(dialer: Dialer, agent: Agent) -> JsonObject:
    health = agent.gateways.health_of(dialer.gateway)
    certificate_expires_at = health.certificate_expires_at
    return {
        "name": dialer.gateway.name,
        "address": str(dialer.gateway.address),
        "handshakes": dialer.handshake_limit.under_way,
        "handshakes_waiting": dialer.handshake_limit.waiting,
        "max_dials": dialer.gateway.max_dials,
        "transport": dialer.transport,
        "transport_wanted": dialer.gateway.transport,
        "reserve": agent.reserves.of(dialer.gateway).warm_count,
        "tunnels_lost": health.losses.total,
        "addresses_avoided": dialer.avoided,
        "certificate_expires": None if certificate_expires_at is None else _iso(certificate_expires_at),
        "clock_offset_s": None if health.clock_offset_s is None else round(health.clock_offset_s, 1),
    }


def _credential(token: Token) -> JsonObject:
    expires_at = token.life.expires_at
    return {
        "name": token.credential.name,
        "source": token.credential.source,
        "has_token": token.value is not None,
        "expires_at": None if expires_at is None else _iso(expires_at),
        "problem": token.problem,
        "note": "systemd copies it at start: restart the agent after rotating it"
        if token.credential.source == "systemd_credential" else "",
    }  # fmt: skip


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
