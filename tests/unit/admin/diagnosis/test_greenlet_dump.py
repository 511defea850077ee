"""Where greenlets wait: all that something owns, those at the same place together."""

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
    """As our own objects are: it has groups, and others that have some."""

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


def told(*roots: object) -> list[str]:
    return dump(roots, lambda: None).split("\n\n")


def test_greenlets_that_wait_at_the_same_place_are_told_together(owner: Owner) -> None:
    owner.spawn("first")
    owner.spawn("second")
    settle()
    (ours,) = [part for part in told(owner) if "wait_for_ever" in part]
    head, where, *_ = ours.splitlines()
    assert head == "2: first, second"
    assert where.endswith("in Owner.wait_for_ever") or "Event.wait" in where


def test_of_very_many_some_are_named(owner: Owner) -> None:
    for number in range(NAMES_SHOWN + 5):
        owner.spawn(f"session {number:03}")
    settle()
    (ours,) = [part for part in told(owner) if "wait_for_ever" in part]
    assert ours.splitlines()[0].startswith(f"{NAMES_SHOWN + 5}: session 000, ")
    assert ours.splitlines()[0].endswith(" and 5 more")


def test_what_is_frozen_out_of_the_collectors_sight_is_found(owner: Owner) -> None:
    inner = Owner()
    owner.others["of a route"] = [inner]
    inner.spawn("listener")
    settle()
    gc.freeze()
    try:
        assert any("listener" in part for part in told(owner))
    finally:
        gc.unfreeze()
        inner.group.kill()


def test_one_that_has_not_begun_and_the_threads_are_told(owner: Owner) -> None:
    owner.spawn("fresh")
    parts = told(owner)
    assert "1: fresh\n    runs, or has not begun" in [part.strip() for part in parts]
    assert any(part.startswith("1: thread ") for part in parts)


def test_one_that_is_over_is_not(owner: Owner) -> None:
    greenlet = gevent.Greenlet(lambda: None)
    greenlet.name = "over"
    greenlet.start()
    settle()
    kept: Any = [greenlet]
    assert not any("over" in part.splitlines()[0] for part in told(kept))


def test_others_get_their_turn_meanwhile(owner: Owner) -> None:
    fair_share: list[int] = []
    owner.others["many"] = [Owner() for _ in range(BATCH_SIZE)]
    dump([owner], lambda: fair_share.append(1))
    assert len(fair_share) >= 1
