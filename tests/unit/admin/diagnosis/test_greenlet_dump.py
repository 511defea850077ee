"""The greenlet dump: all reachable greenlets, grouped by stack."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.pool import Group

from pomagent.admin.diagnosis.greenlet_dump import BATCH_SIZE, NAMES_SHOWN, dump
from tests.fakes.greenlets import settle


class Owner:
    """An object of the package with a group and further owners."""

    def __init__(self) -> None:
        self.group = Group()
        self.others: dict[str, list[Owner]] = {}
        self.never = Event()

    def spawn(self, name: str) -> None:
        self.group.spawn(self.wait_for_ever).name = name

    def wait_for_ever(self) -> None:
        self.never.wait()


Owner.__module__ = "pomagent.of_this_test"


@pytest.fixture
def owner() -> Iterator[Owner]:
    owner = Owner()
    yield owner
    owner.group.kill()


def parts_of(*roots: object) -> list[str]:
    return dump(roots, lambda: None).split("\n\n")


def test_greenlets_with_the_same_stack_are_grouped(owner: Owner) -> None:
    owner.spawn("first")
    owner.spawn("second")
    settle()
    (ours,) = [part for part in parts_of(owner) if "wait_for_ever" in part]
    head, where, *_ = ours.splitlines()
    assert head == "2: first, second"
    assert where.endswith("in Owner.wait_for_ever") or "Event.wait" in where


def test_a_large_group_names_only_some_greenlets(owner: Owner) -> None:
    for number in range(NAMES_SHOWN + 5):
        owner.spawn(f"session {number:03}")
    settle()
    (ours,) = [part for part in parts_of(owner) if "wait_for_ever" in part]
    assert ours.splitlines()[0].startswith(f"{NAMES_SHOWN + 5}: session 000, ")
    assert ours.splitlines()[0].endswith(" and 5 more")


def test_greenlets_of_frozen_objects_are_found(owner: Owner) -> None:
    inner = Owner()
    owner.others["of a route"] = [inner]
    inner.spawn("listener")
    settle()
    gc.freeze()
    try:
        assert any("listener" in part for part in parts_of(owner))
    finally:
        gc.unfreeze()
        inner.group.kill()


def test_unstarted_greenlets_and_threads_are_listed(owner: Owner) -> None:
    owner.spawn("fresh")
    parts = parts_of(owner)
    assert "1: fresh\n    running, or not started" in [part.strip() for part in parts]
    assert any(part.startswith("1: thread ") for part in parts)


def test_a_finished_greenlet_is_not_listed(owner: Owner) -> None:
    greenlet = gevent.Greenlet(lambda: None)
    greenlet.name = "over"
    greenlet.start()
    settle()
    kept: Any = [greenlet]
    assert not any("over" in part.splitlines()[0] for part in parts_of(kept))


def test_other_greenlets_may_run_meanwhile(owner: Owner) -> None:
    pauses: list[int] = []
    owner.others["many"] = [Owner() for _ in range(BATCH_SIZE)]
    dump([owner], lambda: pauses.append(1))
    assert len(pauses) >= 1
