"""Edits of agent.toml and its token while the real agent runs leave open connections alone."""

import signal
import socket

import pytest

from tests.conftest import wait_until
from tests.gateway.destinations import BANNER
from tests.gateway.facade import destination
from tests.gateway.ports import LOOPBACK, unused_port
from tests.support.agent.agent_process import AgentProcess, connect, read_to_end
from tests.support.agent.bastion import ANY, Bastion, hear, listening_inode, on, refuses, say

ECHO, BANNER_ROUTE = destination("echo"), destination("banner")
PROOF = b"never lost\n"
TUNNEL, OFF = {"warm": "tunnel"}, {"warm": "off"}


class Conversation:
    """A connection that stays open over every edit and fails the test if a byte is lost, changed or added."""

    def __init__(self, port: int) -> None:
        self._client = connect(port)
        self._round = 0
        self.goes_on()

    def goes_on(self) -> None:
        """Send a new line and receive exactly that line."""
        self._round += 1
        line = PROOF + b"%d\n" % self._round
        assert say(self._client, line) == line

    def ends(self) -> None:
        """Check that the destination ends the connection without another byte."""
        self._client.shutdown(socket.SHUT_WR)
        self._client.close()


# --- routes ---------------------------------------------------------------------------------------------------------


def test_an_added_route_listens_while_a_connection_of_another_goes_on(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    talk = Conversation(agent.port("echo"))
    bastion.save({"echo": ANY, "banner": ANY})
    with connect(agent.port("banner")) as client:
        assert hear(client, len(BANNER)) == BANNER
    talk.goes_on()
    applied = agent.wait_for("config.applied")
    assert (applied["started"], applied["replaced"], applied["stopped"], applied["kept"]) == (1, 0, 0, 1)
    talk.ends()


def test_every_line_of_a_busy_connection_comes_back_over_ten_edits_of_other_routes(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    talk = Conversation(agent.port("echo"))
    for edit in range(1, 11):
        bastion.save({"echo": ANY, **({"banner": ANY} if edit % 2 else {})})
        wait_until(lambda: talk.goes_on() or len(agent.events("config.applied")) == edit)  # noqa: B023
    talk.ends()
    assert agent.wait_for("session.closed", route="echo")["reason"] == "finished"


def test_a_syntax_error_is_logged_with_its_line_and_changes_nothing(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    talk, inode = Conversation(agent.port("echo")), listening_inode(agent.port("echo"))
    good = bastion.path.read_text()
    bastion.save_text(good + "\n[[routes]\n")
    problem = agent.wait_for("config.rejected")["problems"][0]
    assert problem.startswith(f"{bastion.path}:{len(good.splitlines()) + 2}:")
    talk.goes_on()
    Conversation(agent.port("echo")).ends()
    assert listening_inode(agent.port("echo")) == inode != 0
    talk.ends()


def test_every_problem_of_a_rejected_file_is_in_the_log(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    bastion.save({"echo": {"listen": "0.0.0.0:0"}, "banner": {"listen": ANY, "colour": "red"}})
    problems = agent.wait_for("config.rejected")["problems"]
    assert any("routes.echo.listen" in problem for problem in problems)
    assert any("colour" in problem for problem in problems)


def test_a_file_that_was_rejected_and_then_mended_is_applied(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    bastion.save_text("[[routes")
    agent.wait_for("config.rejected")
    bastion.save({"echo": ANY, "banner": ANY})
    agent.wait_for("config.applied")
    assert not refuses(agent.port("banner"))


@pytest.mark.parametrize("content", ["", "\n\n", "# nothing yet\n"])
def test_a_file_that_is_empty_for_a_moment_is_not_taken_for_one_without_routes(bastion: Bastion, content: str) -> None:
    agent = bastion.start({"echo": ANY})
    bastion.path.write_text(content)  # like an editor that truncates and then writes
    agent.wait_for("config.rejected")
    Conversation(agent.port("echo")).ends()
    assert not agent.events("listener.closed")


def test_a_removed_route_stops_listening_and_its_open_session_lives_on(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY, "banner": ANY})
    port = agent.port("echo")
    talk = Conversation(port)
    bastion.save({"banner": ANY})
    agent.wait_for("config.applied", stopped=1)
    wait_until(lambda: refuses(port))
    talk.goes_on()
    talk.ends()
    assert agent.wait_for("session.closed", route="echo")["reason"] == "finished"


def test_sessions_of_a_removed_route_end_at_the_drain_timeout_as_removed(bastion: Bastion) -> None:
    drain = {"timeout_s": 1}
    agent = bastion.start({"echo": ANY, "banner": ANY}, drain=drain)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        bastion.save({"banner": ANY}, drain=drain)
        with pytest.raises(ConnectionResetError):
            read_to_end(client)
    closed = agent.wait_for("session.closed", route="echo")
    assert (closed["side"], closed["reason"]) == ("agent", "removed")


def test_a_disabled_route_stops_listening_and_an_enabled_one_listens_again(bastion: Bastion) -> None:
    port = unused_port()
    agent = bastion.start({"echo": on(port), "banner": ANY})
    bastion.save({"echo": {"listen": on(port), "enabled": False}, "banner": ANY})
    agent.wait_for("config.applied", stopped=1)
    wait_until(lambda: refuses(port))
    bastion.save({"echo": on(port), "banner": ANY})
    agent.wait_for("config.applied", started=1)
    Conversation(port).ends()


def test_a_changed_listen_address_moves_the_route_and_not_its_session(bastion: Bastion) -> None:
    old, new = unused_port(), unused_port()
    agent = bastion.start({"echo": on(old)})
    talk = Conversation(old)
    bastion.save({"echo": on(new)})
    agent.wait_for("config.applied", replaced=1)
    Conversation(new).ends()
    wait_until(lambda: refuses(old))
    talk.goes_on()
    talk.ends()


def test_two_routes_swap_ports_and_their_sockets(bastion: Bastion) -> None:
    first, second = unused_port(), unused_port()
    agent = bastion.start({"echo": on(first), "banner": on(second)})
    inodes = listening_inode(first), listening_inode(second)
    talk = Conversation(first)
    bastion.save({"echo": on(second), "banner": on(first)})
    agent.wait_for("config.applied", replaced=2)
    with connect(first) as client:
        assert hear(client, len(BANNER)) == BANNER
    Conversation(second).ends()
    assert (listening_inode(first), listening_inode(second)) == inodes != (0, 0)
    talk.goes_on()
    talk.ends()
    assert not agent.events("listener.closed")


def test_a_retargeted_route_serves_the_new_destination_and_old_sessions_keep_theirs(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults=TUNNEL)
    agent.wait_for("pool.filled")
    port, inode = agent.port("echo"), listening_inode(agent.port("echo"))
    talk = Conversation(port)
    bastion.save({"echo": {"from": f"tcp+https://{BANNER_ROUTE}", "listen": ANY}}, defaults=TUNNEL)
    agent.wait_for("config.applied", replaced=1)
    for _ in range(4):  # more sessions than warm tunnels
        with connect(port) as client:
            assert hear(client, len(BANNER)) == BANNER
    talk.goes_on()
    talk.ends()
    assert listening_inode(port) == inode != 0


def test_kept_routes_keep_their_sockets_and_warm_tunnels(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY, "banner": ANY}, defaults=TUNNEL)
    opened = {route: agent.wait_for("tunnel.opened", route=route)["request_id"] for route in ("echo", "banner")}
    inodes = {route: listening_inode(agent.port(route)) for route in opened}
    bastion.save({"echo": ANY, "banner": ANY, "page": ANY}, defaults=TUNNEL)
    agent.wait_for("config.applied", kept=2)
    assert all(inodes.values())
    assert {route: listening_inode(agent.port(route)) for route in opened} == inodes
    Conversation(agent.port("echo")).ends()
    assert agent.wait_for("session.closed", route="echo")["request_id"] == opened["echo"]


# --- credentials ----------------------------------------------------------------------------------------------------


def test_a_replaced_token_is_carried_by_new_tunnels_and_open_sessions_stay(bastion: Bastion) -> None:
    authorizer = bastion.gateway.authorizer
    agent = bastion.start({"echo": ANY}, defaults=TUNNEL)
    talk = Conversation(agent.port("echo"))
    fresh = bastion.gateway.new_token()
    bastion.replace_token(fresh)
    agent.wait_for("config.applied", replaced=1)
    before = len(authorizer.checks_for(ECHO))
    Conversation(agent.port("echo")).ends()
    wait_until(lambda: any(check.token == fresh for check in authorizer.checks_for(ECHO)))
    assert {check.token for check in authorizer.checks_for(ECHO)[before:]} <= {fresh}
    talk.goes_on()
    talk.ends()


def test_a_replaced_token_retires_what_was_warm_with_the_old_one(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults=TUNNEL)
    old = agent.wait_for("tunnel.opened")["request_id"]
    agent.wait_for("pool.filled")
    bastion.replace_token(bastion.gateway.new_token())
    agent.wait_for("tunnel.closed", request_id=old, reason="stale")
    Conversation(agent.port("echo")).ends()
    assert agent.wait_for("session.closed")["request_id"] != old


def test_an_emptied_token_file_is_rejected_and_the_old_token_goes_on(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults=OFF)
    bastion.token_file.write_text("")
    assert "empty" in agent.wait_for("config.rejected")["problems"][0]
    Conversation(agent.port("echo")).ends()


# --- taken addresses ------------------------------------------------------------------------------------------------


def test_a_taken_port_rejects_the_whole_reload(bastion: Bastion) -> None:
    free = unused_port()
    agent = bastion.start({"echo": ANY})
    talk = Conversation(agent.port("echo"))
    with socket.create_server((LOOPBACK, 0)) as other:
        taken = other.getsockname()[1]
        bastion.save({"echo": ANY, "banner": on(taken), "page": on(free)})
        problem = agent.wait_for("config.rejected")["problems"][0]
        assert "routes.banner.listen" in problem
        assert str(taken) in problem
        assert refuses(free)
        talk.goes_on()
    bastion.save({"echo": ANY, "banner": on(taken)})
    agent.wait_for("config.applied", started=1)
    talk.ends()


def test_a_port_taken_at_start_quarantines_its_route_until_it_is_free(bastion: Bastion) -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        taken = other.getsockname()[1]
        agent = bastion.start({"echo": ANY, "banner": on(taken)})
        quarantined = agent.wait_for("route.quarantined", route="banner")
        assert str(taken) in quarantined["problems"][0]
        Conversation(agent.port("echo")).ends()
    agent.wait_for("listener.bound", route="banner")
    with connect(taken) as client:
        assert hear(client, len(BANNER)) == BANNER


@pytest.mark.parametrize("edit", ["the file", "the token", "the quarantined route"])
def test_a_quarantined_route_does_not_hold_up_edits(bastion: Bastion, edit: str) -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        taken = other.getsockname()[1]
        agent = bastion.start({"echo": ANY, "banner": on(taken)})
        if edit == "the file":
            bastion.save({"echo": ANY, "banner": on(taken), "page": ANY})
        elif edit == "the token":
            bastion.replace_token(bastion.gateway.new_token())
        else:
            bastion.save({"echo": ANY, "banner": {"listen": on(taken), "description": "soon"}})
        agent.wait_for("config.applied")
        assert not agent.events("config.rejected")
    agent.wait_for("listener.bound", route="banner")
    with connect(taken) as client:
        assert hear(client, len(BANNER)) == BANNER


def test_another_route_that_takes_a_quarantined_ones_address_is_bound_or_refused(bastion: Bastion) -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        taken = on(port)
        agent = bastion.start({"echo": ANY, "page": taken})
        agent.wait_for("route.quarantined", route="page")
        bastion.save({"echo": ANY, "banner": taken})
        done = agent.command("reload")
        assert done.returncode == 78
        assert "banner" in done.stderr
    done = agent.command("reload")
    assert done.returncode == 0, done.stderr
    with connect(port) as client:
        assert hear(client, len(BANNER)) == BANNER


def test_a_quarantined_route_that_moves_to_a_free_port_serves_there(bastion: Bastion) -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        agent = bastion.start({"echo": ANY, "banner": on(other.getsockname()[1])})
        bastion.save({"echo": ANY, "banner": ANY})
        with connect(agent.port("banner")) as client:
            assert hear(client, len(BANNER)) == BANNER


# --- signals --------------------------------------------------------------------------------------------------------


def test_sighup_reads_the_file_again(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    agent.signal(signal.SIGHUP)
    agent.wait_for("config.unchanged")
    bastion.save({"echo": ANY, "banner": ANY})
    agent.signal(signal.SIGHUP)
    agent.wait_for("config.applied", started=1)
    assert agent.process.poll() is None


def test_an_override_from_the_environment_still_wins_after_a_reload(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, agent={"log_level": "error"})
    bastion.save({"echo": ANY, "banner": ANY}, agent={"log_level": "warning"})
    agent.wait_for("config.applied")  # an info event: the environment sets the level debug
    assert _serves(agent)


def _serves(agent: AgentProcess) -> bool:
    with connect(agent.port("echo")) as client:
        return say(client) == b"hello\n"
