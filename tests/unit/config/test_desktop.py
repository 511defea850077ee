"""An export of Pomerium Desktop with any texts becomes a file that ``load`` accepts."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pomagent.config.desktop import Imported, read_export, to_toml
from pomagent.config.desktop.listen import SPARE_PORTS, Addresses
from pomagent.config.load import load
from pomagent.errors import ConfigError
from pomagent.settings import HostPort, Route, Settings

DATA = Path(__file__).parents[2] / "data" / "desktop"
CLAIMS = sorted(path.stem for path in DATA.glob("*.json"))
Load = Callable[..., Settings]


def imported(*connections: dict[str, Any], **record: Any) -> Imported:
    records = [{"conn": connection, **record} for connection in connections]
    return to_toml(read_export(json.dumps({"records": records}).encode(), Path("export.json")))


def refusal(content: bytes | str) -> str:
    with pytest.raises(ConfigError) as error:
        read_export(content.encode() if isinstance(content, str) else content, Path("export.json"))
    assert len(error.value.problems) == 1
    return str(error.value)


@pytest.fixture
def route(load_text: Load) -> Callable[..., Route]:
    """Returns the only route of an export with one connection."""

    def only_route(**connection: Any) -> Route:
        (found,) = load_text(imported({"remoteAddr": "a.example.com:5432"} | connection).text).routes
        return found

    return only_route


class TestExports:
    @pytest.mark.parametrize("claim", CLAIMS)
    def test_an_export_becomes_the_expected_file(self, claim: str, load_text: Load) -> None:
        found = to_toml(read_export((DATA / f"{claim}.json").read_bytes(), Path("export.json")))
        warnings = "".join(f"{warning}\n" for warning in found.warnings)
        if os.environ.get("POMAGENT_TEST_ACCEPT"):  # to be read in the diff before it is committed
            (DATA / f"{claim}.toml").write_text(found.text)
            (DATA / f"{claim}.warnings").write_text(warnings)
        assert (DATA / f"{claim}.toml").read_text() == found.text
        assert (DATA / f"{claim}.warnings").read_text() == warnings
        assert len(load_text(found.text).routes) == found.routes

    @pytest.mark.parametrize("claim", CLAIMS)
    def test_no_certificate_and_no_password_gets_out(self, claim: str) -> None:
        for kind in ("toml", "warnings"):
            written = (DATA / f"{claim}.{kind}").read_text()
            for secret in ("hunter2", "c2VjcmV0", "secret-c"):
                assert secret not in written

    def test_export_without_connections_becomes_a_file_that_allows_to_be_empty(self, load_text: Load) -> None:
        for export in (b'{"@type": "type.googleapis.com/pomerium.cli.Records"}', b'{"records": null}'):
            found = to_toml(read_export(export, Path("export.json")))
            assert load_text(found.text).routes == ()

    def test_a_byte_order_mark_is_no_part_of_the_export(self) -> None:
        assert read_export(b'\xef\xbb\xbf{"records": []}', Path("export.json")) == []


class TestInvalidExports:
    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"\xff", "export.json: is not a Pomerium Desktop export: not UTF-8"),
            ("", "export.json:1:1: is not a Pomerium Desktop export: not JSON: expecting value"),
            ('{\n"records": [}', "export.json:2:13: is not a Pomerium Desktop export: not JSON: expecting value"),
            (
                "[" * 100_000,
                "export.json: is not a Pomerium Desktop export: nested too deeply, or a number is too long",
            ),
            ("9" * 5000, "export.json: is not a Pomerium Desktop export: nested too deeply, or a number is too long"),
            ("[]", "export.json: is an array; expected an object with records: is this a Pomerium Desktop export?"),
            ("{}", "export.json: records: is null; expected an array: is this a Pomerium Desktop export?"),
        ],
    )
    def test_invalid_export_is_refused_in_one_sentence(self, content: bytes | str, problem: str) -> None:
        assert refusal(content) == problem

    @pytest.mark.parametrize(
        ("record", "problem"),
        [
            (1, "records[0]: is 1; expected an object"),
            ({"conn": []}, "records[0].conn: is an array; expected an object"),
            ({"conn": {"name": 5}}, "records[0].conn.name: is 5; expected a string"),
            ({"conn": {"remote_addr": True}}, "records[0].conn.remote_addr: is a boolean; expected a string"),
            ({"conn": {"disableTlsVerification": "hunter2"}}, "records[0].conn.disableTlsVerification: is a string;"),
            ({"conn": {"disableTlsVerification": 1}}, "records[0].conn.disableTlsVerification: is 1; expected true or"),
            ({"conn": {"caCert": {"hunter2": 1}}}, "records[0].conn.caCert: is a table; expected base64"),
            ({"conn": {"clientCert": "hunter2"}}, "records[0].conn.clientCert: is a string; expected an object"),
            ({"conn": {"protocol": 1.5}}, "records[0].conn.protocol: is 1.5; expected TCP or UDP"),
            ({"conn": {"protocol": True}}, "records[0].conn.protocol: is a boolean; expected TCP or UDP"),
            ({"tags": ["a", 1]}, "records[0].tags: is an array; expected an array of strings"),
        ],
    )
    def test_a_value_of_the_wrong_type_is_named_and_not_repeated(self, record: object, problem: str) -> None:
        said = refusal(json.dumps({"records": [record]}))
        assert said.startswith(f"export.json: {problem}")
        assert "hunter2" not in said

    def test_another_message_than_records_is_refused(self) -> None:
        said = refusal('{"@type": "type.googleapis.com/pomerium.cli.Selector", "records": []}')
        assert said.startswith('export.json: @type: is a string; expected "…/pomerium.cli.Records"')


class TestAddresses:
    @pytest.mark.parametrize(
        ("connection", "destination", "edge"),
        [
            ({"remoteAddr": " a.example.com:22 "}, "a.example.com:22", "a.example.com:443"),
            ({"remoteAddr": "tcp+https://a.example.com:22"}, "a.example.com:22", "a.example.com:443"),
            ({"remoteAddr": "HTTPS://a.example.com:22"}, "a.example.com:22", "a.example.com:443"),
            ({"remoteAddr": "https://edge.test/a.example.com:22"}, "a.example.com:22", "edge.test:443"),
            ({"remoteAddr": "https://edge.test:8443/a.example.com:22"}, "a.example.com:22", "edge.test:8443"),
            ({"remoteAddr": "a:22", "pomeriumUrl": "https://edge.test/path?query"}, "a:22", "edge.test:443"),
            ({"remoteAddr": "[::1]:22", "pomeriumUrl": "https://[::2]:8443"}, "[::1]:22", "[::2]:8443"),
        ],
    )
    def test_addresses_are_read_as_by_pomerium_cli(
        self, connection: dict[str, str], destination: str, edge: str, route: Callable[..., Route]
    ) -> None:
        found = route(**connection)
        assert (destination, edge, True) == (str(found.destination), str(found.gateway.address), found.gateway.tls)

    def test_clear_text_stays_clear_text_and_is_warned_of(self, route: Callable[..., Route]) -> None:
        found = route(pomeriumUrl="http://edge.test")
        assert (str(found.gateway.address), found.gateway.tls) == ("edge.test:80", False)
        (warning,) = imported({"remoteAddr": "a:22", "pomeriumUrl": "http://edge.test"}).warnings
        assert warning == "connection 1: its gateway is http://: the token travels in clear text"

    @pytest.mark.parametrize(
        ("connection", "why"),
        [
            ({}, "it has no remoteAddr"),
            ({"remoteAddr": "a"}, "its address has no port; expected HOST:PORT"),
            ({"remoteAddr": "a:22", "protocol": "UDP"}, "it is a UDP connection, which pomagent does not carry yet"),
            ({"remoteAddr": "a:22", "protocol": 2}, "it is a UDP connection, which pomagent does not carry yet"),
            ({"remoteAddr": "udp+https://a:22"}, "it is a UDP connection, which pomagent does not carry yet"),
            ({"remoteAddr": "a:22", "protocol": "Q\n"}, "its protocol is Q, which pomagent does not know"),
            (
                {"remoteAddr": "a:22", "pomeriumUrl": "edge.test"},
                "its address is behind a pomeriumUrl that has no scheme; expected https://HOST or https://HOST:PORT",
            ),
        ],
    )
    def test_unusable_connection_is_left_out_with_the_reason(self, connection: dict[str, Any], why: str) -> None:
        found = imported(connection)
        assert (found.routes, found.left_out) == (0, 1)
        assert found.warnings == (f"connection 1: left out: {why}",)
        assert f"# connection 1\n# left out: {why}\n" in found.text


class TestListen:
    @pytest.mark.parametrize(
        ("text", "listen"),
        [
            ("127.0.0.1:8888", "127.0.0.1:8888"),
            ("127.0.0.2:80", "127.0.0.2:80"),
            ("[::1]:8888", "[::1]:8888"),
            ("localhost:8888", "127.0.0.1:8888"),
            (":8888", "127.0.0.1:8888"),
            ("0.0.0.0:8888", "127.0.0.1:8888"),
            ("[::]:8888", "127.0.0.1:8888"),
            ("192.0.2.1:8888", "127.0.0.1:8888"),
            ("", "127.0.0.1:5432"),
            ("127.0.0.1:0", "127.0.0.1:5432"),
            ("127.0.0.1", "127.0.0.1:5432"),
            ("8888", "127.0.0.1:5432"),
            ("db.internal:8888", "127.0.0.1:5432"),
            ("unix:/run/x", "127.0.0.1:5432"),
            ("127.0.0.1:9765", "127.0.0.1:5432"),
        ],
    )
    def test_listen_address_is_fixed_and_on_loopback(self, text: str, listen: str, route: Callable[..., Route]) -> None:
        assert listen == str(route(listenAddr=text).listen)

    def test_a_privileged_port_moves_up(self, route: Callable[..., Route]) -> None:
        assert str(route(remoteAddr="a:22").listen) == "127.0.0.1:10022"

    def test_an_address_that_is_asked_for_is_not_given_to_an_earlier_connection(self, load_text: Load) -> None:
        found = imported({"remoteAddr": "a:5432"}, {"remoteAddr": "b:1", "listenAddr": "127.0.0.1:5432"})
        assert [str(r.listen) for r in load_text(found.text).routes] == [
            f"127.0.0.1:{SPARE_PORTS[0]}",
            "127.0.0.1:5432",
        ]

    def test_when_no_port_is_left_the_kernel_chooses(self) -> None:
        addresses, destination = Addresses(), HostPort("a", 5432)
        given = [addresses.choose(destination, "x") for _ in range(len(SPARE_PORTS) + 2)]
        assert given[-3:] == [HostPort("127.0.0.1", 32_766), HostPort("127.0.0.1", 32_767), HostPort("127.0.0.1", 0)]
        assert len(set(given)) == len(given)


class TestNames:
    def test_names_become_valid_and_unique(self, load_text: Load) -> None:
        names = ["DB", "db", "db-2", "db", "Été (prod)", "", "水"]
        found = imported(*({"name": name, "remoteAddr": "a:1"} for name in names))
        assert [r.name for r in load_text(found.text).routes] == [
            "db", "db-2", "db-2-2", "db-3", "ete-prod", "a-1", "a-1-2",
        ]  # fmt: skip

    def test_the_longest_host_still_gets_a_name_and_a_number(self, load_text: Load) -> None:
        host = ".".join(["x" * 63] * 3 + ["x" * 61])
        names = [r.name for r in load_text(imported(*[{"remoteAddr": f"{host}:65535"}] * 3).text).routes]
        assert len(set(names)) == 3

    def test_original_name_becomes_the_description(self, route: Callable[..., Route]) -> None:
        assert route(name="Orders DB").description == "Orders DB"
        assert route(name="orders-db").description == ""


class TestTrust:
    CA = base64.b64encode(b"secret-ca").decode()

    def test_a_gateway_without_verification_is_one(self, route: Callable[..., Route]) -> None:
        assert not route(disableTlsVerification=True).gateway.trust.verify

    def test_a_ca_certificate_wins_over_no_verification(self, route: Callable[..., Route]) -> None:
        assert route(disableTlsVerification=True, caCert=self.CA).gateway.trust.verify

    def test_connections_with_the_same_trust_share_a_gateway(self, load_text: Load) -> None:
        edge = {"pomeriumUrl": "https://edge.test", "remoteAddr": "a:1"}
        other = base64.b64encode(b"secret-cb").decode()
        found = imported({**edge, "caCert": self.CA}, {**edge, "caCert": other}, {**edge, "caCert": self.CA}, edge)
        names = [route.gateway.name for route in load_text(found.text).routes]
        assert names == ["edge.test", "edge.test-2", "edge.test", "edge.test:443"]
        assert found.text.count("# ca_file") == 2

    @pytest.mark.parametrize(
        ("connection", "where"),
        [
            ({"clientCert": {"cert": CA, "key": CA}}, ["clientCert.cert", "clientCert.key"]),
            ({"client_cert": {"cert": CA}}, ["client_cert.cert"]),
            ({"tlsClientCert": CA, "tlsClientKey": CA}, ["tlsClientCert", "tlsClientKey"]),
            ({"ca_cert": CA}, ["ca_cert"]),
        ],
    )
    def test_comment_shows_how_to_extract_certificates(self, connection: dict[str, Any], where: list[str]) -> None:
        found = imported({"remoteAddr": "a:1", **connection})
        for path in where:
            assert f"umask 077; jq -r '.records[0].conn.{path}' " in found.text
        assert self.CA not in found.text


# --- any export of the right shape ------------------------------------------------------------------------------------

ports = st.integers(-1, 70_000).map(str)
hosts = st.one_of(
    st.sampled_from(["a", "b.test", "[::1]", "127.0.0.1", "", "*", "0.0.0.0", "[::]"]), st.text(max_size=9)
)
addresses = st.one_of(st.builds("{}:{}".format, hosts, ports), st.text(max_size=20))
schemes = st.sampled_from(["", "https://", "http://", "tcp+https://", "udp+https://", "tcp://", "HTTPS://"])
urls = st.one_of(
    st.builds("{}{}".format, schemes, addresses), st.builds("{}{}/{}".format, schemes, addresses, addresses)
)
KEPT = "s3cr3t"
blobs = st.text(max_size=9).map(lambda text: base64.b64encode(KEPT.encode() + text.encode(errors="replace")).decode())
texts = st.one_of(st.text(max_size=20), st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl"]), max_size=9))
connections = st.fixed_dictionaries(
    {},
    optional={
        "name": texts | st.none(),
        "protocol": st.sampled_from(["TCP", "UDP", "UNKNOWN", 0, 1, 2, 3, None]) | texts,
        "remoteAddr": urls,
        "listenAddr": addresses,
        "pomeriumUrl": urls,
        "disableTlsVerification": st.booleans(),
        "caCert": blobs,
        "clientCert": st.fixed_dictionaries({}, optional={"cert": blobs, "key": blobs}),
        "clientCertFromStore": st.just({}),
        "autostart": st.booleans(),
        "later": texts,
    },
)
RECORD = {"id": texts, "tags": st.lists(texts, max_size=3), "conn": connections, "source": texts}
unknown_keys = texts.filter(lambda key: key not in RECORD)
records = st.fixed_dictionaries({}, optional=RECORD) | st.builds(
    lambda key: {"conn": {"name": key, "remoteAddr": "a.test:22"}, key: 1}, unknown_keys
)


@settings(max_examples=150)
@given(st.lists(records, max_size=6))
def test_any_export_of_the_right_shape_becomes_a_file_that_is_accepted(exported: list[dict[str, Any]]) -> None:
    found = to_toml(read_export(json.dumps({"records": exported}).encode(), Path("export.json")))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "agent.toml")
        path.write_text(found.text)
        assert found.routes == len(load(path, {}).routes)
    assert found.routes + found.left_out == len(exported)
    secret = base64.b64encode(KEPT.encode()).decode()[:8]
    for written in (found.text, *found.warnings):
        assert secret not in written
        assert all(line.isprintable() for line in written.split("\n"))


@settings(max_examples=200)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["records", "conn", "name", "tags", "remoteAddr", "protocol", "clientCert", "cert", "x"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_other_json_is_converted_or_refused_in_one_sentence(value: Any) -> None:
    said = ""
    try:
        to_toml(read_export(json.dumps(value).encode(), Path("export.json")))
    except ConfigError as refused:
        said = str(refused)
    assert "\n" not in said
