"""Which TLS 1.3 cipher suite a real context of this interpreter offers first."""

import os
import ssl
import sys
from pathlib import Path

import pytest

from pomagent.transport import cipher_order
from pomagent.transport.cipher_order import PREFERRED, prefer_aes_128
from tests.support.agent import processes

OTHER = "TLS_AES_256_GCM_SHA384"
PRINT_ORDER = """
import ssl
from pomagent.transport.cipher_order import prefer_aes_128
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
prefer_aes_128(context)
print(*(cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.3"))
"""


def new_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def names(context: ssl.SSLContext) -> list[str]:
    return [cipher["name"] for cipher in context.get_ciphers()]


def test_aes_128_comes_first_and_nothing_else_changes() -> None:
    context, untouched = new_context(), names(new_context())
    prefer_aes_128(context)
    assert names(context) == [PREFERRED, *(name for name in untouched if name != PREFERRED)]


def test_setting_the_order_twice_changes_nothing() -> None:
    context = new_context()
    prefer_aes_128(context)
    once = names(context)
    prefer_aes_128(context)
    assert names(context) == once


@pytest.mark.parametrize(
    ("host_suites", "offered"),
    [
        (OTHER, [OTHER]),
        (f"{OTHER}:TLS_CHACHA20_POLY1305_SHA256:{PREFERRED}", [PREFERRED, OTHER, "TLS_CHACHA20_POLY1305_SHA256"]),
    ],
)
def test_suite_that_the_host_policy_excludes_stays_excluded(
    tmp_path: Path, host_suites: str, offered: list[str]
) -> None:
    policy = tmp_path / "openssl.cnf"
    policy.write_text(
        "openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = default\n"
        f"[default]\nCiphersuites = {host_suites}\n"
    )
    printed = processes.run(
        [sys.executable, "-c", PRINT_ORDER],
        env={**os.environ, "OPENSSL_CONF": str(policy)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert printed.stdout.split() == offered, printed.stderr


class TestUnknownInterpreter:
    def test_keeps_its_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cipher_order, "_LAYOUTS_KNOWN", ((3, 0), (3, 10)))
        context = new_context()
        prefer_aes_128(context)
        assert names(context) == names(new_context())

    def test_with_a_hidden_openssl_keeps_its_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.modules["_ssl"], "__file__", "libc.so.6", raising=False)
        context = new_context()
        prefer_aes_128(context)
        assert names(context) == names(new_context())


def test_interpreter_with_set_ciphersuites_is_used() -> None:
    class Context(ssl.SSLContext):
        order: str

        def set_ciphersuites(self, order: str) -> None:
            self.order = order

    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    prefer_aes_128(context)
    assert context.order.split(":")[:2] == [PREFERRED, OTHER]
