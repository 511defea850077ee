"""What a reload does with each route."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from pomagent.reload.plan import Plan, Replaced, diff
from pomagent.settings import Credential, Gateway, HostPort, Route, Settings, Trust, UnixAddress, listen_key

GATEWAY = Gateway("corp", HostPort("edge.example.com", 443))
CREDENTIAL = Credential("default", "service_account_file", Path("/t"), token=SecretStr("one"))
ORDERS = Route(
    "orders",
    HostPort("127.0.0.1", 5432),
    HostPort("orders.example.com", 5432),
    GATEWAY,
    CREDENTIAL,
    protocol="postgres",
)
REDIS = Route("redis", HostPort("127.0.0.1", 6379), HostPort("redis.example.com", 6379), GATEWAY)


def of(*routes: Route) -> Settings:
    return Settings(Path("/agent.toml"), routes=routes)


def test_every_enabled_route_is_started_at_the_start():
    assert diff(None, of(ORDERS, replace(REDIS, enabled=False))) == Plan(started=(ORDERS,))


def test_route_in_which_nothing_changed_is_kept():
    plan = diff(of(ORDERS, REDIS), of(REDIS, ORDERS))
    assert plan == Plan(kept=(REDIS, ORDERS))
    assert plan.is_empty


def test_equal_routes_that_were_read_anew_are_kept():
    again = replace(ORDERS, credential=replace(CREDENTIAL, token=SecretStr("one")), gateway=replace(GATEWAY))
    assert diff(of(ORDERS), of(again)) == Plan(kept=(ORDERS,))


def test_recheck_interval_retires_no_tunnel():
    (often,) = diff(of(ORDERS), of(replace(ORDERS, credential=replace(CREDENTIAL, recheck_s=60.0)))).replaced
    assert not often.retires_tunnels
    other = replace(CREDENTIAL, recheck_s=60.0, token=SecretStr("two"))
    (rotated,) = diff(of(ORDERS), of(replace(ORDERS, credential=other))).replaced
    assert rotated.retires_tunnels


def test_new_route_is_started_beside_the_others():
    plan = diff(of(ORDERS), of(ORDERS, REDIS))
    assert plan == Plan(started=(REDIS,), kept=(ORDERS,))
    assert not plan.is_empty


def test_removed_route_is_stopped():
    assert diff(of(ORDERS, REDIS), of(ORDERS)) == Plan(stopped=(REDIS,), kept=(ORDERS,))


def test_disabled_route_is_stopped_and_an_enabled_one_started():
    off = replace(ORDERS, enabled=False)
    assert diff(of(ORDERS), of(off)) == Plan(stopped=(ORDERS,))
    assert diff(of(off), of(ORDERS)) == Plan(started=(ORDERS,))


def test_edit_of_a_disabled_route_has_no_effect():
    off = replace(ORDERS, enabled=False)
    assert diff(of(off), of(replace(off, pool_max=9))) == Plan()


def test_renamed_route_is_stopped_and_started():
    renamed = replace(ORDERS, name="billing")
    assert diff(of(ORDERS), of(renamed)) == Plan(started=(renamed,), stopped=(ORDERS,))


def test_routes_that_swap_addresses_both_move():
    orders, redis = replace(ORDERS, listen=REDIS.listen), replace(REDIS, listen=ORDERS.listen)
    plan = diff(of(ORDERS, REDIS), of(orders, redis))
    assert plan == Plan(replaced=(Replaced(ORDERS, orders), Replaced(REDIS, redis)))
    assert all(replaced.moves for replaced in plan.replaced)
    assert {listen_key(ORDERS), listen_key(REDIS)} == {listen_key(orders), listen_key(redis)}


OTHER = {
    "destination": HostPort("orders.example.com", 5433),
    "gateway": replace(GATEWAY, trust=Trust(digest="another CA in the same file")),
    "credential": replace(CREDENTIAL, token=SecretStr("two")),
    "protocol": "generic",
    "warm": "tls",
    "pool_min": 2,
    "pool_max": 5,
    "pool_max_age_s": 46.0,
    "pool_decay_s": 0.0,
    "wait_timeout_s": 21.0,
    "hold_s": 0.0,
    "max_sessions": 257,
    "half_close": "close",
    "half_close_timeout_s": 61.0,
    "idle_timeout_s": 1.0,
    "max_lifetime_s": 1.0,
    "allow_users": ("postgres",),
}
HARMLESS = {"tags": ("a",), "description": "Orders"}
IDENTITY = {"name", "listen", "enabled"}


def test_cases_below_name_every_field_of_a_route():
    assert set(Route.__dataclass_fields__) == OTHER.keys() | HARMLESS.keys() | IDENTITY


@pytest.mark.parametrize("field", OTHER)
def test_change_that_affects_tunnels_retires_them_and_keeps_the_socket(field):
    changed = replace(ORDERS, **{field: OTHER[field]})
    [replaced] = diff(of(ORDERS), of(changed)).replaced
    assert replaced == Replaced(ORDERS, changed)
    assert replaced.retires_tunnels
    assert not replaced.moves
    assert listen_key(ORDERS) == listen_key(changed)


@pytest.mark.parametrize("field", HARMLESS)
def test_description_and_tags_retire_no_tunnel(field):
    [replaced] = diff(of(ORDERS), of(replace(ORDERS, **{field: HARMLESS[field]}))).replaced
    assert not replaced.retires_tunnels
    assert not replaced.moves


def test_new_address_moves_the_route_and_retires_no_tunnel():
    [replaced] = diff(of(ORDERS), of(replace(ORDERS, listen=HostPort("127.0.0.1", 15432)))).replaced
    assert replaced.moves
    assert not replaced.retires_tunnels


def test_other_permissions_of_a_unix_socket_move_the_route():
    old, new = (replace(ORDERS, listen=UnixAddress(Path("/run/x.sock"), mode)) for mode in (0o660, 0o600))
    [replaced] = diff(of(old), of(new)).replaced
    assert replaced.moves


class TestListenKey:
    def test_routes_with_one_address_share_a_listener(self):
        assert listen_key(ORDERS) == listen_key(replace(REDIS, listen=ORDERS.listen))

    def test_other_addresses_are_other_listeners(self):
        assert listen_key(ORDERS) != listen_key(replace(ORDERS, listen=HostPort("127.0.0.2", 5432)))
        assert listen_key(ORDERS) != listen_key(replace(ORDERS, listen=HostPort("127.0.0.1", 5433)))

    def test_port_that_the_kernel_chooses_is_each_routes_own(self):
        orders, redis = (replace(route, listen=HostPort("127.0.0.1", 0)) for route in (ORDERS, REDIS))
        assert listen_key(orders) == listen_key(replace(orders, pool_max=9))
        assert listen_key(orders) != listen_key(redis)

    def test_unix_socket_is_its_path(self):
        old, new = (replace(ORDERS, listen=UnixAddress(Path("/run/x.sock"), mode)) for mode in (0o660, 0o600))
        assert listen_key(old) == listen_key(new)
        assert listen_key(old) != listen_key(replace(old, listen=UnixAddress(Path("/run/y.sock"))))
