"""The difference between two settings, route by route."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pomagent.settings import Route, Settings


@dataclass(frozen=True, slots=True)
class Replaced:
    """A route that keeps running under changed settings."""

    old: Route
    new: Route

    @property
    def moves(self) -> bool:
        """Whether its listen address or the permissions of its socket change."""
        return self.old.listen != self.new.listen

    @property
    def retires_tunnels(self) -> bool:
        """Whether its warm tunnels were opened, or are kept, under settings that have changed."""
        new = self.new
        old = replace(self.old, listen=new.listen, tags=new.tags, description=new.description)
        return _without_recheck(old) != _without_recheck(new)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reload does with each enabled route. A route that is now disabled is stopped."""

    started: tuple[Route, ...] = ()
    replaced: tuple[Replaced, ...] = ()
    stopped: tuple[Route, ...] = ()
    kept: tuple[Route, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.started or self.replaced or self.stopped)


def diff(old: Settings | None, new: Settings) -> Plan:
    """Return the plan that leads from ``old`` (None at the start) to ``new``. Routes are identified by name."""
    before = _enabled(old) if old else {}
    after = _enabled(new)
    return Plan(
        started=tuple(route for name, route in after.items() if name not in before),
        replaced=tuple(
            Replaced(before[name], route) for name, route in after.items() if name in before and before[name] != route
        ),
        stopped=tuple(route for name, route in before.items() if name not in after),
        kept=tuple(route for name, route in after.items() if before.get(name) == route),
    )


def _without_recheck(route: Route) -> Route:
    """Remove the recheck interval of its credential, which does not affect tunnels."""
    return replace(route, credential=replace(route.credential, recheck_s=0.0)) if route.credential else route


def _enabled(settings: Settings) -> dict[str, Route]:
    return {route.name: route for route in settings.routes if route.enabled}
