"""Scenes with a pool, each checked for leaks at the end of its test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from pomagent.pool.dial_budget import NO_DIALS
from pomagent.protocol.lifecycle import State
from tests.fakes.pool import ROUTE, Scene


@pytest.fixture
def make() -> Iterator[object]:
    scenes: list[Scene] = []

    def make_scene(held: frozenset[str] = frozenset({"open"}), **changes: object) -> Scene:
        scenes.append(Scene(replace(ROUTE, **changes), held))  # type: ignore[arg-type]
        return scenes[-1]

    yield make_scene
    for scene in scenes:
        scene.close()
        pool = scene.pool
        assert (pool._state.dials, pool.waiting_count, pool.warm_count) == (NO_DIALS, 0, 0)
        assert all(tunnel.state is State.ACTIVE for tunnel in scene.opener.open_tunnels)


@pytest.fixture
def scene(make) -> Scene:
    return make()
