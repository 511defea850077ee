"""The edge's one HTTPS listener. Pure: values in, JSON-able values out.

The numbers are those that Pomerium gives its own Envoy (``timeout_read``, ``timeout_idle``, buffers, header limits).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.gateway.certificates import Certificate
from tests.gateway.configuration import (
    AUTHORIZE,
    BUFFER_BYTES,
    EXTENSIONS,
    ROUTE_TABLE,
    STAT_PREFIX,
    Json,
    duration,
    extension,
    file_source,
    socket_address,
)
from tests.gateway.ports import LOOPBACK

CONNECTION_MANAGER = f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"

# Answers of Envoy itself become Pomerium's pages. UAEX is left out: a denial keeps the authorizer's own body.
LOCAL_REPLY_FLAGS = sorted(
    {"NR", "NC", "UH", "UF", "UO", "UC", "UT", "UR", "URX", "UPE", "LR", "SI", "DPE", "DF", "RL", "OM", "UMSDR", "DT"}
)

ACCESS_LOG_FORMAT = {
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
}


Enforcement = Literal["reject_connection", "policy"]
"""Modes of ``downstream_mtls``: TLS requires a certificate of the CA, or accepts all and the authorizer judges."""


@dataclass(frozen=True)
class ListenerOptions:
    """What the edge's one HTTPS listener looks like."""

    certificate: Certificate
    client_ca_file: Path | None = None  # set: client certificates are asked for
    enforcement: Enforcement = "reject_connection"
    alpn: tuple[str, ...] = ("h2", "http/1.1")
    authorize_timeout_s: float = 10
    request_timeout_s: float = 30
    idle_connection_timeout_s: float = 300  # a TLS connection without a tunnel


def listener(port: int, options: ListenerOptions, access_log: Path, routes_file: Path, version: int) -> Json:
    """The HTTPS listener. A new version makes it a new listener, whatever else is the same."""
    manager = _connection_manager(options, access_log, routes_file)
    return {
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": "https-ingress",
        "address": socket_address((LOOPBACK, port)),
        "metadata": {"filter_metadata": {"pomagent": {"version": version}}},
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "listener_filters": [
            extension("tls_inspector", f"{EXTENSIONS}.filters.listener.tls_inspector.v3.TlsInspector")
        ],
        "filter_chains": [
            {
                "transport_socket": _tls(options),
                "filters": [extension("http_connection_manager", CONNECTION_MANAGER, manager)],
            }
        ],
    }


def _connection_manager(options: ListenerOptions, access_log: Path, routes_file: Path) -> Json:
    # No http2_protocol_options: Pomerium sets none on this listener, so plain CONNECT works over HTTP/2 as well.
    return {
        "stat_prefix": STAT_PREFIX,
        "codec_type": "AUTO",
        "always_set_request_id_in_response": True,
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "max_request_headers_kb": 128,
        "request_timeout": duration(options.request_timeout_s),
        "common_http_protocol_options": {
            "idle_timeout": duration(options.idle_connection_timeout_s),
            "headers_with_underscores_action": "REJECT_REQUEST",
            "max_headers_count": 1000,
        },
        "local_reply_config": {"mappers": [_json_reply(), _html_reply()]},
        "access_log": [_access_log(access_log)],
        "http_filters": [_authorization(options), extension("router", f"{EXTENSIONS}.filters.http.router.v3.Router")],
        "rds": {"route_config_name": ROUTE_TABLE, "config_source": file_source(routes_file)},
    }


def _authorization(options: ListenerOptions) -> Json:
    # gRPC, as in Pomerium: the HTTP flavour passes the CONNECT method on and then always ends in a 503.
    return extension(
        "ext_authz",
        f"{EXTENSIONS}.filters.http.ext_authz.v3.ExtAuthz",
        {
            "transport_api_version": "V3",
            "status_on_error": {"code": "ServiceUnavailable"},
            "include_peer_certificate": True,
            "grpc_service": {
                "timeout": duration(options.authorize_timeout_s),
                "envoy_grpc": {"cluster_name": AUTHORIZE},
            },
        },
    )


def _json_reply() -> Json:
    wants_json = {"header": {"name": "accept", "string_match": {"contains": "application/json"}}}
    values = {"requestId": "%STREAM_ID%", "status": "%RESPONSE_CODE%", "statusText": "%RESPONSE_CODE_DETAILS%"}
    return {
        "filter": {"and_filter": {"filters": [_own_reply(), {"header_filter": wants_json}]}},
        "body_format_override": {"content_type": "application/json; charset=UTF-8", "json_format": values},
    }


def _html_reply() -> Json:
    page = "<!doctype html><title>Error</title><p>%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% request %STREAM_ID%</p>\n"
    return {
        "filter": _own_reply(),
        "body_format_override": {
            "content_type": "text/html; charset=UTF-8",
            "text_format_source": {"inline_string": page},
        },
    }


def _own_reply() -> Json:
    return {"response_flag_filter": {"flags": LOCAL_REPLY_FLAGS}}


def _access_log(path: Path) -> Json:
    return extension(
        "file",
        f"{EXTENSIONS}.access_loggers.file.v3.FileAccessLog",
        {"path": str(path), "log_format": {"json_format": ACCESS_LOG_FORMAT}},
    )


def _tls(options: ListenerOptions) -> Json:
    certificate = options.certificate
    is_required = options.client_ca_file is not None and options.enforcement == "reject_connection"
    common: Json = {
        "alpn_protocols": list(options.alpn),
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(certificate.cert_file)},
                "private_key": {"filename": str(certificate.key_file)},
            }
        ],
    }
    if options.client_ca_file:
        common["validation_context"] = {"trusted_ca": {"filename": str(options.client_ca_file)}}
        if not is_required:
            common["validation_context"]["trust_chain_verification"] = "ACCEPT_UNTRUSTED"
    return extension(
        "tls",
        f"{EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext",
        {"require_client_certificate": is_required, "common_tls_context": common},
    )
