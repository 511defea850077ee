"""Tests of the package, the unit and the agent in a booted Debian with a real systemd and a loopback network."""
