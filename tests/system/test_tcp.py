"""``pomagent tcp``: one route without a file, on a local port or on standard input and output."""

import base64
import hashlib
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.gateway.agent_toml import write_token
from tests.gateway.certificates import Authority
from tests.gateway.destinations import BANNER, pseudo_random, sha256_of
from tests.gateway.facade import Gateway, destination
from tests.gateway.ports import LOOPBACK, unused_port
from tests.gateway.waiting import scaled
from tests.support.agent import processes
from tests.support.agent.agent_process import clean_environment, connect, pomagent
from tests.support.agent.bastion import say
from tests.support.agent.tcp_process import TcpProcess, gateway_flags

CANNOT_SERVE, USAGE, NOT_PERMITTED, INVALID = 69, 2, 77, 78
ECHO = destination("echo")
MIB = 1024 * 1024


@pytest.fixture
def token_file(gateway: Gateway, tmp_path: Path) -> Path:
    write_token(tmp_path / "token", gateway.token)
    return tmp_path / "token"


@pytest.fixture
def flags(gateway: Gateway, token_file: Path) -> list[str]:
    return gateway_flags(gateway, token_file)


@pytest.fixture
def mutual_gateway(tmp_path: Path) -> Iterator[tuple[Gateway, Authority]]:
    """A gateway that requires a client certificate, and the authority that issues them."""
    clients = Authority(tmp_path, "clients")
    with Gateway(client_ca_file=clients.ca_file) as gateway:
        yield gateway, clients


def serves(tmp_path: Path, *arguments: str) -> bool:
    with TcpProcess(tmp_path, *arguments) as tcp, connect(tcp.address[1]) as client:
        return say(client) == b"hello\n"


# On a local port.


@pytest.mark.parametrize("listen", [[], ["--listen", "127.0.0.1:0"], ["--listen", "0"], ["--listen", "localhost:0"]])
def test_tcp_prints_its_address_and_serves_there(tmp_path: Path, flags: list[str], listen: list[str]) -> None:
    with TcpProcess(tmp_path, ECHO, *listen, *flags) as tcp:
        host, port = tcp.address
        assert host == LOOPBACK
        for _ in range(3):
            with connect(port) as client:
                assert say(client) == b"hello\n"
        assert len(tcp.output.splitlines()) == 1


def test_tcp_listens_on_the_given_port(tmp_path: Path, flags: list[str]) -> None:
    port = unused_port()
    with TcpProcess(tmp_path, ECHO, "--listen", f"{LOOPBACK}:{port}", *flags) as tcp:
        assert tcp.address == (LOOPBACK, port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_tcp_cleanly(tmp_path: Path, flags: list[str], number: signal.Signals) -> None:
    with TcpProcess(tmp_path, ECHO, *flags) as tcp:
        tcp.process.send_signal(number)
        assert tcp.process.wait(scaled(20)) == 0


def test_a_url_is_a_destination_too(tmp_path: Path, flags: list[str]) -> None:
    assert serves(tmp_path, f"tcp+https://{ECHO}", *flags)


def test_the_bastion_form_names_gateway_and_destination(tmp_path: Path, gateway: Gateway, token_file: Path) -> None:
    flags = ["--service-account-file", str(token_file), "--alternate-ca-path", str(gateway.ca_file)]
    assert serves(tmp_path, f"tcp+https://localhost:{gateway.port}/{ECHO}", *flags)


def test_a_port_in_use_is_reported(flags: list[str]) -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        taken = f"{LOOPBACK}:{other.getsockname()[1]}"
        done = pomagent("tcp", ECHO, "--listen", taken, *flags)
    assert done.returncode == NOT_PERMITTED
    assert taken in done.stderr
    assert "Traceback" not in done.stderr


# Trust.


def test_a_ca_certificate_may_come_as_base64(tmp_path: Path, gateway: Gateway, token_file: Path) -> None:
    encoded = base64.b64encode(gateway.ca_file.read_bytes()).decode()
    url = f"https://localhost:{gateway.port}"
    assert serves(
        tmp_path, ECHO, "--pomerium-url", url, "--service-account-file", str(token_file), "--ca-cert", encoded
    )


@pytest.mark.parametrize("text", ["not base64!", base64.b64encode(b"no certificate").decode(), ""])
def test_an_invalid_ca_certificate_is_reported(gateway: Gateway, token_file: Path, text: str) -> None:
    done = pomagent("tcp", ECHO, "--listen", "-", "--service-account-file", str(token_file), "--ca-cert", text)
    assert done.returncode in {USAGE, INVALID}
    assert "certificate" in done.stderr
    assert len(done.stderr.splitlines()[-1]) < 200
    assert "Traceback" not in done.stderr


def test_verification_may_be_turned_off(tmp_path: Path, gateway: Gateway, token_file: Path) -> None:
    url = f"https://localhost:{gateway.port}"
    flags = ["--pomerium-url", url, "--service-account-file", str(token_file)]
    assert pomagent("tcp", ECHO, "--listen", "-", *flags).returncode == CANNOT_SERVE
    assert serves(tmp_path, ECHO, *flags, "--disable-tls-verification")


def test_a_client_certificate_is_accepted_by_a_gateway_that_requires_one(
    tmp_path: Path, mutual_gateway: tuple[Gateway, Authority]
) -> None:
    gateway, clients = mutual_gateway
    write_token(tmp_path / "token", gateway.token)
    ours, flags = clients.issue_client(), gateway_flags(gateway, tmp_path / "token")
    assert serves(tmp_path, ECHO, *flags, "--client-cert", str(ours.cert_file), "--client-key", str(ours.key_file))
    done = pomagent("tcp", ECHO, "--listen", "-", *flags)
    assert done.returncode == CANNOT_SERVE
    assert "client certificate" in done.stderr


@pytest.mark.parametrize("flag", ["--alternate-ca-path", "--client-cert", "--client-key"])
def test_a_certificate_file_that_is_missing_is_named(tmp_path: Path, flag: str) -> None:
    done = pomagent("tcp", ECHO, flag, str(tmp_path / "missing.pem"))
    assert done.returncode == USAGE
    assert flag in done.stderr
    assert str(tmp_path / "missing.pem") in done.stderr


# Arguments that are rejected before the first dial.


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("tcp://127.0.0.1:{}", ""),
        ("tcp+http://127.0.0.1:{}", ""),
        ("db.example.test:5432", "http://127.0.0.1:{}"),
        ("db.example.test:5432", "tcp://127.0.0.1:{}"),
        ("db.example.test:5432", "tcp+https://127.0.0.1:{}"),
        ("tcp+https://127.0.0.1:{}/db.example.test:5432/", ""),
    ],
)
def test_no_way_to_write_an_address_sends_the_token_in_clear_text(
    tmp_path: Path, gateway: Gateway, address: str, url: str
) -> None:
    """Wire §10 #10: the address is rejected, or TLS comes first."""
    write_token(tmp_path / "token", gateway.token)
    with socket.create_server((LOOPBACK, 0)) as edge:
        port = edge.getsockname()[1]
        flags = ["--pomerium-url", url.format(port)] if url else []
        flags += ["--service-account-file", str(tmp_path / "token")]
        command = [sys.executable, "-m", "pomagent", "tcp", address.format(port), "--listen", "-", *flags]
        with processes.Process(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()
        ) as process:
            wait_until(lambda: process.poll() is not None or select.select([edge], [], [], 0)[0])
            if process.poll() is None:
                connection, _ = edge.accept()
                with connection:
                    assert connection.recv(2) == b"\x16\x03"  # a TLS handshake
                process.kill()
            else:
                assert process.returncode == USAGE


def test_a_token_on_the_command_line_is_refused_and_not_repeated() -> None:
    token = "eyJhbGciOi.made-for-this-test.c2lnbmF0dXJl"  # a minted one would be found by the scan for secrets
    done = pomagent("tcp", ECHO, "--service-account", token)
    assert done.returncode == USAGE
    assert "use --service-account-file" in done.stderr
    assert token not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "DESTINATION"),
        (["echo.example.test"], "DESTINATION"),
        (["echo.example.test:none"], "DESTINATION"),
        (["udp+https://echo.example.test:53"], "DESTINATION"),
        (["ftp://echo.example.test:21"], "DESTINATION"),
        ([ECHO, "--pomerium-url", "gateway"], "--pomerium-url"),
        ([ECHO, "--pomerium-url", "ftp://gateway.example.test"], "--pomerium-url"),
        ([ECHO, "--pomerium-url", "http://gateway.example.test"], "clear text"),
        ([ECHO, "--listen", "127.0.0.1:port"], "--listen"),
        ([ECHO, "--listen", ":6379"], "--listen"),
        ([ECHO, "--listen", "127.0.0.1:70000"], "--listen"),
        ([ECHO, "--listen", "unix:/tmp/x.sock"], "--listen takes no Unix socket"),
        ([ECHO, "--listen", "example.com:6379"], "--listen is no local address"),
        ([ECHO, "--client-key", __file__], "--client-key needs --client-cert"),
        ([ECHO, "--client-cert", __file__ + "x"], "does not exist"),
        ([ECHO, "--client-cert", __file__], f"--client-cert {__file__} holds no PEM certificate"),
        ([ECHO, "--alternate-ca-path", __file__], f"--alternate-ca-path {__file__} holds no PEM certificate"),
        ([ECHO, "--alternate-ca-path", "/dev/null"], "--alternate-ca-path /dev/null is not a regular file"),
    ],
)  # fmt: skip
def test_invalid_arguments_are_usage_errors(arguments: list[str], word: str) -> None:
    done = pomagent("tcp", *arguments)
    assert done.returncode == USAGE
    assert word in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mode", [None, 0o644, 0])
def test_a_token_file_that_cannot_be_used_is_an_invalid_configuration(
    tmp_path: Path, gateway: Gateway, mode: int | None
) -> None:
    token_file = tmp_path / "token"
    if mode is not None:
        write_token(token_file, gateway.token if mode else "")
        token_file.chmod(mode or stat.S_IRUSR)
    done = pomagent("tcp", ECHO, *gateway_flags(gateway, token_file))
    assert done.returncode == INVALID
    assert str(token_file) in done.stderr
    assert "Traceback" not in done.stderr
    assert gateway.token not in done.stderr


# On standard input and output.


def test_standard_input_is_sent_and_the_answer_is_printed(flags: list[str]) -> None:
    done = pomagent("tcp", ECHO, "--listen", "-", *flags, stdin=b"hello\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")


def test_8_mib_pass_through_pipes_unchanged(tmp_path: Path, flags: list[str]) -> None:
    body = b"".join(pseudo_random(11, 8 * MIB))
    done = _stdio(flags, body)
    assert done.returncode == 0
    assert hashlib.sha256(done.stdout).hexdigest() == sha256_of(11, 8 * MIB)


def test_files_serve_as_standard_input_and_output(tmp_path: Path, flags: list[str]) -> None:
    source, sink = tmp_path / "source", tmp_path / "sink"
    source.write_bytes(b"".join(pseudo_random(12, MIB)))
    with source.open("rb") as stdin, sink.open("wb") as stdout:
        done = processes.run(
            _command(flags), stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, check=False, timeout=scaled(60),
            env=clean_environment(),
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert hashlib.sha256(sink.read_bytes()).hexdigest() == sha256_of(12, MIB)


def test_tcp_ends_when_the_destination_closes(flags: list[str]) -> None:
    """It ends although standard input stays open."""
    process = processes.Process(
        _command(flags, destination("hangup")), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment()
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.read() == b""
        assert process.wait(scaled(20)) == 0


def test_the_banner_of_a_server_that_speaks_first_is_printed(flags: list[str]) -> None:
    done = pomagent("tcp", destination("banner"), "--listen", "-", *flags)
    assert done.returncode == 0
    assert done.stdout.encode() == BANNER


@pytest.mark.parametrize(
    ("name", "words"),
    [("down", ("503", "start it, or mend")), ("noconnect", ("403",)), ("nowhere", ("404", 'compare "from"'))],
)  # fmt: skip
def test_a_failure_to_open_the_tunnel_is_reported_with_its_cause(
    flags: list[str], name: str, words: tuple[str, ...]
) -> None:
    done = pomagent("tcp", destination(name), "--listen", "-", *flags)
    assert (done.returncode, done.stdout) == (CANNOT_SERVE, "")
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in words)


def test_a_missing_credential_is_reported_with_the_remedy(gateway: Gateway) -> None:
    flags = ["--pomerium-url", f"https://localhost:{gateway.port}", "--alternate-ca-path", str(gateway.ca_file)]
    done = pomagent("tcp", ECHO, "--listen", "-", "--no-login", *flags)
    assert done.returncode == CANNOT_SERVE
    assert "no credential was sent" in done.stderr
    assert "--service-account-file" in done.stderr


def test_without_a_credential_a_public_route_serves(gateway: Gateway) -> None:
    flags = ["--pomerium-url", f"https://localhost:{gateway.port}", "--alternate-ca-path", str(gateway.ca_file)]
    done = pomagent("tcp", destination("public"), "--listen", "-", *flags, stdin=b"hello\n")
    assert (done.returncode, done.stdout) == (0, "hello\n")


def test_a_gateway_that_is_down_cannot_serve(gateway: Gateway, flags: list[str]) -> None:
    gateway.edge.stop()
    done = pomagent("tcp", ECHO, "--listen", "-", *flags)
    assert done.returncode == CANNOT_SERVE
    assert "start the gateway, or mend the URL" in done.stderr


def test_a_closed_standard_output_ends_tcp(flags: list[str], gateway: Gateway) -> None:
    process = processes.Process(
        _command(flags, destination("download")), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=clean_environment(),
    )  # fmt: skip
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"1 {64 * MIB}\n".encode())
        process.stdin.flush()
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.wait(scaled(20)) is not None
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    wait_until(lambda: gateway.edge.open_tunnels == 0)


def test_a_full_disk_is_an_error(flags: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = processes.run(
            _command(flags), input=b"hello\n", stdout=full, stderr=subprocess.PIPE, check=False,
            timeout=scaled(60), env=clean_environment(),
        )  # fmt: skip
    assert done.returncode == CANNOT_SERVE
    assert done.stderr.decode() == "pomagent: cannot write to standard output: no space left on device\n"


def _command(flags: list[str], address: str = ECHO) -> list[str]:
    return [sys.executable, "-m", "pomagent", "tcp", address, "--listen", "-", *flags]


def _stdio(flags: list[str], stdin: bytes) -> "subprocess.CompletedProcess[bytes]":
    return processes.run(
        _command(flags), input=stdin, capture_output=True, check=False, timeout=scaled(60), env=clean_environment()
    )
