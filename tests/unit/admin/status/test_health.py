"""Answers to health probes for routes in every state."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from pomagent.admin.status.health import MAX_NAMED, OK, readiness, readiness_of
from pomagent.admin.status.route_states import RouteStatus

UP = RouteStatus("orders", "up", "", is_ready=True)
DOWN = RouteStatus("billing", "down", "edge:443 refused: 503; start that server", is_ready=False)
DISABLED = RouteStatus("old", "disabled", "", is_ready=False)
NOT_READY, UNKNOWN = HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.NOT_FOUND


@pytest.mark.parametrize(
    ("routes", "require", "status"),
    [
        ([DOWN], "", HTTPStatus.OK),
        ([UP, DOWN], "any", HTTPStatus.OK),
        ([DOWN], "any", NOT_READY),
        ([], "any", NOT_READY),
        ([DISABLED], "any", NOT_READY),
        ([UP], "all", HTTPStatus.OK),
        ([UP, DISABLED], "all", HTTPStatus.OK),
        ([UP, DOWN], "all", NOT_READY),
        ([], "all", HTTPStatus.OK),
        ([UP, DOWN], "orders", HTTPStatus.OK),
        ([UP, DOWN], "orders,billing", NOT_READY),
        ([UP, DISABLED], "old", NOT_READY),
        ([UP], "orders,nothing", UNKNOWN),
        ([UP], ",", UNKNOWN),
    ],
)
def test_readiness_depends_on_the_required_routes(routes: list[RouteStatus], require: str, status: HTTPStatus) -> None:
    assert readiness(routes, require).status == status


def test_unready_routes_are_named_with_the_reason() -> None:
    assert readiness([UP, DOWN], "all").text == (
        "1 of 2 routes not ready\nbilling: down: edge:443 refused: 503; start that server\n"
    )


def test_the_probe_of_one_route_reports_state_and_reason() -> None:
    routes = {route.name: route for route in (UP, DOWN)}
    assert (readiness_of(routes, "orders").status, readiness_of(routes, "orders").text) == (OK.status, "up\n")
    assert readiness_of(routes, "billing").text == "down: edge:443 refused: 503; start that server\n"
    assert readiness_of(routes, "nothing").status == UNKNOWN


def test_an_unknown_name_is_not_repeated() -> None:
    assert "<script>" not in readiness([UP], "<script>").text
    assert "<script>" not in readiness_of({}, "<script>").text


@pytest.mark.parametrize(("count", "more"), [(MAX_NAMED, False), (MAX_NAMED + 1, True)])
def test_an_answer_names_a_bounded_number_of_routes(count: int, more: bool) -> None:
    routes = [RouteStatus(f"route-{n}", "down", "", is_ready=False) for n in range(count)]
    text = readiness(routes, "all").text
    assert len(text.splitlines()) == 1 + MAX_NAMED + more
    assert ("and 1 more" in text) is more
