"""A token is read only from a private file or a variable, and only if it is well-formed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pomagent.config.secrets import MAX_TOKEN_BYTES, looks_like_token, read_token
from pomagent.errors import CredentialError
from pomagent.settings import Credential

Write = Callable[..., Path]


def _of_file(path: Path) -> Credential:
    return Credential("default", "service_account_file", path=path)


def _of_variable(name: str) -> Credential:
    return Credential("default", "env", variable=name)


@pytest.mark.parametrize("content", ["a.b-c_d", "a.b-c_d\n", "  a.b-c_d \r\n"])
def test_blanks_around_a_token_are_dropped(content: str, write: Write) -> None:
    assert read_token(_of_file(write("t", content)), {}).get_secret_value() == "a.b-c_d"
    assert read_token(_of_variable("T"), {"T": content}).get_secret_value() == "a.b-c_d"


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640, 0o660])
def test_token_file_readable_by_owner_and_group_is_accepted(mode: int, write: Write) -> None:
    assert read_token(_of_file(write("t", "token", mode)), {})


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666, 0o777])
def test_token_file_open_to_every_user_is_refused(mode: int, write: Write) -> None:
    with pytest.raises(CredentialError, match=rf"by every user \(mode {mode:04o}\); expected 0640 or less"):
        read_token(_of_file(write("t", "token", mode)), {})


def test_the_mode_of_a_link_is_that_of_its_target(write: Write, directory: Path) -> None:
    write("t", "token", 0o644)
    (directory / "link").symlink_to("t")
    with pytest.raises(CredentialError, match="every user"):
        read_token(_of_file(directory / "link"), {})


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("Pomerium token", "more than one word"),
        ("token\ntoken", "more than one word"),
        ("token\x00token", "characters that no token has"),
        ("tökén", "characters that no token has"),
        ("\ufefftoken", "characters that no token has"),
    ],
)
def test_text_that_is_not_one_token_is_refused(content: str, wrong: str, write: Write) -> None:
    with pytest.raises(CredentialError, match=wrong):
        read_token(_of_file(write("t", content)), {})
    with pytest.raises(CredentialError, match=wrong):
        read_token(_of_variable("T"), {"T": content})


def test_a_binary_file_is_refused(write: Write) -> None:
    with pytest.raises(CredentialError, match="not a text file"):
        read_token(_of_file(write("t", b"\xff\xfe\x00")), {})


@pytest.mark.parametrize(("extra", "is_allowed"), [(-1, True), (0, True), (1, False)])
def test_a_token_has_at_most_64_kib(extra: int, is_allowed: bool, write: Write) -> None:
    text = "x" * (MAX_TOKEN_BYTES + extra)
    for credential, environ in ((_of_file(write("t", text)), {}), (_of_variable("T"), {"T": text})):
        if is_allowed:
            assert read_token(credential, environ).get_secret_value() == text
        else:
            with pytest.raises(CredentialError, match="than 65536 bytes"):
                read_token(credential, environ)


def test_a_missing_file_is_named(directory: Path) -> None:
    with pytest.raises(CredentialError, match="missing cannot be read: No such file"):
        read_token(_of_file(directory / "missing"), {})


def test_a_pipe_is_refused_without_waiting_for_a_writer(directory: Path) -> None:
    os.mkfifo(directory / "pipe", 0o600)
    with pytest.raises(CredentialError, match="not a regular file"):
        read_token(_of_file(directory / "pipe"), {})


def test_an_unset_variable_is_named() -> None:
    with pytest.raises(CredentialError, match="variable T is not set"):
        read_token(_of_variable("T"), {})


@pytest.mark.parametrize("source", ["command", "login"])
def test_sources_that_are_asked_later_have_nothing_to_read(source: str) -> None:
    with pytest.raises(CredentialError, match=f"its source is {source}"):
        read_token(Credential("default", source), {})  # type: ignore[arg-type]


def test_a_refusal_never_repeats_the_token(write: Write) -> None:
    for content in ("hunter2 hunter2", "hunter2\x00", "hunter2é", "hunter2" * 20_000):
        with pytest.raises(CredentialError) as refusal:
            read_token(_of_file(write("t", content)), {})
        assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("eyJhbGciOiJIUzI1NiJ9.e30.c2ln", True),
        ("0123456789abcdef0123456789abcdef", True),
        ("/etc/pomagent/bastion.jwt", False),
        ("bastion.jwt", False),
        ("POMAGENT_TOKEN", False),
    ],
)
def test_pasted_token_is_distinguished_from_a_path(text: str, expected: bool) -> None:
    assert looks_like_token(text) is expected
