"""Tokens that are minted, replaced, refused and expire while the real agent serves."""

from contextlib import ExitStack
from pathlib import Path

from tests.gateway.facade import Gateway, destination
from tests.gateway.waiting import wait_until
from tests.support.agent.agent_process import AgentProcess, connect
from tests.support.agent.bastion import ANY, Bastion, say


def sent(gateway: Gateway, name: str = "echo") -> list[str]:
    """Return the tokens of the CONNECTs to a destination, in order."""
    return [check.token for check in gateway.authorizer.checks_for(destination(name))]


def mint_script(directory: Path, *tokens: str) -> str:
    """Return, as TOML, a command that prints one of these tokens each run, the last one repeatedly."""
    for number, token in enumerate(tokens):
        (directory / f"token-{number}").write_text(token)
    script = directory / "mint"
    script.write_text(
        f'#!/bin/sh\ncd {directory}\necho run >> runs\nnumber=$(($(wc -l < runs) - 1))\n'
        f'[ -e token-$number ] || number={len(tokens) - 1}\necho "run $number" >&2\ncat token-$number\n'
    )  # fmt: skip
    script.chmod(0o755)
    return f'["{script}"]'


def start(bastion: Bastion, credential: str, *, warm: str = "tunnel", scheme: str = "pomerium") -> AgentProcess:
    gateway = bastion.gateway
    bastion.save_text(
        f'[status]\nlisten = ""\n[credentials.default]\n{credential}\nscheme = "{scheme}"\n'
        f'[gateways.edge]\nurl = "{gateway.url}"\nconnect_to = "{gateway.connect_to}"\nca_file = "{gateway.ca_file}"\n'
        f'[[routes]]\nname = "echo"\nfrom = "{destination("echo")}"\ngateway = "edge"\n'
        f'listen = "{ANY}"\nwarm = "{warm}"\n'
    )
    return bastion.resume()


def test_command_prints_the_token_and_its_standard_error_is_logged(bastion: Bastion, gateway: Gateway) -> None:
    command = mint_script(bastion.directory, gateway.token)
    agent = start(bastion, f"command = {command}")
    agent.wait_for("pool.filled")
    assert sent(gateway) == [gateway.token]
    assert agent.wait_for("credential.commented")["said"] == "run 0"
    assert gateway.token not in agent.log


def test_command_runs_again_before_its_token_expires(bastion: Bastion, gateway: Gateway) -> None:
    # A token is refreshed 240 s before its end, but not within 30 s of the last refresh.
    short, long = (
        gateway.new_token(expires_in_s=260),
        gateway.new_token(),
    )
    command = mint_script(bastion.directory, short, long)
    agent = start(bastion, f"command = {command}")
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        agent.wait_for("credential.refreshed", count=2, timeout_s=60)
        assert say(client) == b"hello\n"
    agent.wait_for("tunnel.closed", reason="stale")
    wait_until(lambda: sent(gateway)[-1] == long)


def test_failing_command_is_reported_and_retried(bastion: Bastion, gateway: Gateway) -> None:
    script = bastion.directory / "mint"
    script.write_text("#!/bin/sh\necho the vault is sealed >&2\nexit 4\n")
    script.chmod(0o755)
    agent = start(bastion, f'command = ["{script}"]')
    failed = agent.wait_for("tunnel.failed")
    assert "exit code 4: the vault is sealed" in failed["error"]
    assert failed["recovery"] == "reauthenticate"
    (route,) = agent.status()["routes"]
    assert (route["state"], "the vault is sealed" in route["reason"]) == ("unauthenticated", True)
    assert sent(gateway) == []
    good = bastion.directory / "good"
    good.write_text(f"#!/bin/sh\necho {gateway.token}\n")
    good.chmod(0o755)
    good.replace(script)
    agent.wait_for("pool.filled", timeout_s=40)


def test_denied_bearer_token_is_fetched_again_once(bastion: Bastion, gateway: Gateway) -> None:
    stale, fresh = gateway.new_token(), gateway.new_token()
    gateway.authorizer.forbid_token(stale)
    token_file = bastion.directory / "idp-token"
    token_file.touch(mode=0o600)
    token_file.write_text(stale)
    agent = start(bastion, f'service_account_file = "{token_file}"', scheme="bearer", warm="off")
    with token_file.open("w") as file:
        file.write(fresh)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    assert sent(gateway)[-1] == fresh


def test_a_token_file_is_replaced_while_50_sessions_run(bastion: Bastion, gateway: Gateway) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "tunnel"})
    fresh = gateway.new_token()
    with ExitStack() as sessions:
        clients = [sessions.enter_context(connect(agent.port("echo"))) for _ in range(50)]
        for client in clients:
            assert say(client) == b"hello\n"
        bastion.replace_token(fresh)
        while not agent.events("config.applied"):  # no client is refused in the meantime either
            with connect(agent.port("echo")) as client:
                assert say(client) == b"hello\n"
        gateway.authorizer.forget()
        later = [sessions.enter_context(connect(agent.port("echo"))) for _ in range(10)]
        for client in clients + later:
            assert say(client, b"and on\n") == b"and on\n"
    assert set(sent(gateway)) == {fresh}
    assert not agent.events("session.refused")
    assert not agent.events("tunnel.failed")


def test_expiry_of_a_token_is_announced_and_the_token_stays_in_use(bastion: Bastion, gateway: Gateway) -> None:
    bastion.replace_token(gateway.new_token(expires_in_s=1800))
    agent = bastion.start({"echo": ANY})
    expiring = agent.wait_for("credential.expiring")
    assert (expiring["level"], expiring["credential"]) == ("warning", "default")
    (credential,) = agent.status()["credentials"]
    assert credential["expires_at"]
    bastion.replace_token(gateway.new_token(expires_in_s=-60))
    assert agent.wait_for("credential.expiring", level="error")["expires_in_ms"] < 0
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"


def test_credentials_on_one_gateway_are_not_mixed(bastion: Bastion, gateway: Gateway) -> None:
    one, two = gateway.new_token(), gateway.new_token()
    for name, token in (("one", one), ("two", two)):
        (bastion.directory / name).touch(mode=0o600)
        (bastion.directory / name).write_text(token)
    text = f'[status]\nlisten = ""\n[gateways.edge]\nurl = "{gateway.url}"\nconnect_to = "{gateway.connect_to}"\n'
    text += f'ca_file = "{gateway.ca_file}"\n'
    for name, to in (("one", "echo"), ("two", "page")):
        text += f'[credentials.{name}]\nservice_account_file = "{name}"\n'
        text += f'[[routes]]\nname = "{name}"\nfrom = "{destination(to)}"\ngateway = "edge"\ncredential = "{name}"\n'
        text += f'listen = "{ANY}"\nwarm = "tunnel"\n'
    bastion.save_text(text)
    agent = bastion.resume()
    for name in ("one", "two"):
        agent.wait_for("pool.filled", route=name)
    assert (set(sent(gateway, "echo")), set(sent(gateway, "page"))) == ({one}, {two})
