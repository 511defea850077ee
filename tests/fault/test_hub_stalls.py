"""The agent's process is stopped for a while: its event loop stands still."""

import signal
import time

from tests.support.agent.bastion import ANY, Bastion


def test_stall_is_one_line_in_the_log(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "off"})
    agent.wait_for("agent.started")
    time.sleep(0.5)  # the first measurement has begun
    agent.signal(signal.SIGSTOP)
    time.sleep(2.5)
    agent.signal(signal.SIGCONT)
    stalled = agent.wait_for("hub.stalled")
    assert stalled["duration_ms"] >= 1000
