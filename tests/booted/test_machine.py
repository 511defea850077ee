"""The harness itself: what the other tests here take for granted."""

import socket


def test_every_unit_of_a_fresh_machine_starts(machine):
    assert machine.run("systemctl", "is-system-running").stdout == "running\n"


def test_a_reboot_keeps_files(machine):
    machine.write("/etc/kept", "here\n")
    machine.reboot()
    assert machine.run("cat", "/etc/kept").stdout == "here\n"


def test_nothing_but_loopback_is_there(machine):
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    assert "lo:" in machine.run("cat", "/proc/net/dev").stdout
